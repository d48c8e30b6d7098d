"""What a processor makes of pictures, and whether that is what given inputs hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

CLOSE = 0.001  # of the variance of the pixels: how far another backend's resize may be off, on average
IMAGES, VIDEO = "pixel_values", "pixel_values_videos"
AS_GIVEN = {"do_sample_frames": False}  # the frames given are those that were sampled

SWITCHES = (
    "do_center_crop",
    "do_pad",
    "do_resize",
    "crop_to_patches",
    "do_pan_and_scan",
    "do_image_splitting",
)  # settings that move pixels, often given in the call


def usual_settings(processor: Any, kind: str = "images_kwargs") -> dict[str, Any]:
    """The settings that the combined processor passes in every call, over those of its image processor.

    Args:
        kind: "videos_kwargs" are those over its video processor.
    """
    older = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {})
    return {**older.get(kind, {}), **(getattr(processor, kind, None) or {})}


def variants(base: Any, usual: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Settings that a call of the image processor `base` may have had: the usual ones, then with one switch turned."""
    yield {**usual}
    for name in SWITCHES:
        value = usual.get(name, getattr(base, name, None))
        if value is not None:
            yield {**usual, name: not value}


def nested(images: list[Image.Image], inputs: Mapping[str, Any]) -> Any:
    """LLaVA-OneVision makes other pixels of images that it is told belong together."""
    together = inputs.get("batch_num_images")
    return [images] if isinstance(together, Tensor) and together.tolist() == [len(images)] else images


def made(make: Callable[..., Mapping[str, Any]], images: Any, settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a processor makes of the images; None where it refuses them."""
    try:
        return make(images, **{**settings, "return_tensors": "pt"})
    except Exception:  # processors raise any kind of error, for a picture or a setting they do not take
        return None


def made_of_videos(
    processor: Any, videos: list[list[Image.Image]], settings: Mapping[str, Any] = AS_GIVEN
) -> Mapping[str, Any] | None:
    """What the processor makes of the frames of each video; None where it refuses them, or reads no videos."""
    make = getattr(processor, "video_processor", None)
    usual = usual_settings(processor, "videos_kwargs")
    return None if make is None else made(make, videos, {**usual, **settings})


def same(made: Mapping[str, Any] | None, inputs: Mapping[str, Any], share: float) -> bool:
    """Whether all tensors that both hold agree, pixels included, up to a share of their variance."""
    if made is None:
        return False
    both = {name: inputs[name] for name in made if isinstance(inputs.get(name), Tensor)}
    same = all(_as_tensor_is_alike(made[name], value, share) for name, value in both.items())
    return same and any(is_pixels(name, value) for name, value in both.items())


def _as_tensor_is_alike(made: Any, given: Tensor, share: float) -> bool:
    """Some processors list numbers whatever they are asked for (Unlimited OCR)."""
    try:
        return alike(torch.as_tensor(made), given, share)
    except (TypeError, ValueError, RuntimeError):  # a list of images, say
        return False


def is_pixels(name: str, value: Any) -> bool:
    """Whether a processor's output holds pixels: numbers with a fraction, or bytes (Molmo 2's videos)."""
    return isinstance(value, Tensor) and (value.is_floating_point() or name.startswith(IMAGES))


def alike(made: Tensor, given: Tensor, share: float) -> bool:
    """Whether two tensors are of one shape, and agree up to a share of their variance; whole numbers in all."""
    if made.shape != given.shape:
        return False
    one, other = made.to(given), given
    if not other.is_floating_point():
        return torch.equal(one, other)
    one, other = one.float(), other.float()
    return bool((one - other).square().mean() <= share * one.var(correction=0))
