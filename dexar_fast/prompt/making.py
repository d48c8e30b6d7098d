"""What a processor makes of pictures, and whether that is what given inputs hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

CLOSE = 0.001  # of the variance of the pixels: how far another backend's resize may be off, on average
VIDEO = "pixel_values_videos"
WAYS = 256  # of sharing frames out that are tried
AS_GIVEN = {"do_sample_frames": False}  # the frames given are those that were sampled


def usual_settings(processor: Any, kind: str = "images_kwargs") -> dict[str, Any]:
    """The settings that the combined processor passes in every call, over those of its image processor.

    Args:
        kind: "videos_kwargs" are those over its video processor.
    """
    older = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {})
    return {**older.get(kind, {}), **(getattr(processor, kind, None) or {})}


def nested(images: list[Image.Image], inputs: Mapping[str, Any]) -> Any:
    """LLaVA-OneVision makes other pixels of images that it is told belong together."""
    together = inputs.get("batch_num_images")
    return [images] if isinstance(together, Tensor) and together.tolist() == [len(images)] else images


def split(pictures: Sequence[Image.Image], inputs: Mapping[str, Any]) -> tuple[list[Image.Image], list[Image.Image]]:
    """The images, and the frames of videos behind them."""
    if VIDEO not in inputs:
        return [*pictures], []
    named = [inputs[name] for name in ("image_grid_thw", "image_sizes") if isinstance(inputs.get(name), Tensor)]
    count = len(named[0]) if named else 0
    return [*pictures[:count]], [*pictures[count:]]


def made(make: Callable[..., Mapping[str, Any]], images: Any, settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a processor makes of the images; None where it refuses them."""
    try:
        return make(images, **{**settings, "return_tensors": "pt"})
    except Exception:  # processors raise any kind of error, for a picture or a setting they do not take
        return None


def shared_out(frames: list[Image.Image], inputs: Mapping[str, Any]) -> Iterator[list[list[Image.Image]]]:
    """Each way in which the frames can be those of the videos that the inputs hold, one behind the other."""
    for counts in itertools.islice(itertools.product(*_ranges(len(frames), inputs)), WAYS):
        if sum(counts) == len(frames):
            ends = [*itertools.accumulate(counts, initial=0)]
            yield [frames[start:end] for start, end in itertools.pairwise(ends)]


def _ranges(frames: int, inputs: Mapping[str, Any]) -> list[Iterable[int]]:
    """How many of the frames each video of the inputs can have."""
    grids, pixels = inputs.get("video_grid_thw"), inputs.get(VIDEO)
    if isinstance(grids, Tensor) and len(grids) > 1:
        steps = grids[:, 0].tolist()
        most = math.ceil(frames / sum(steps))  # frames in a step, of which the last of a video may lack some
        return [range((each - 1) * most + 1, each * most + 1) for each in steps]
    count = len(pixels) if isinstance(pixels, Tensor) and pixels.ndim == 5 else 1
    return [[frames // count]] * count


def made_of_videos(
    processor: Any, videos: list[list[Image.Image]], inputs: Mapping[str, Any], settings: Mapping[str, Any] = AS_GIVEN
) -> Mapping[str, Any] | None:
    """What the processor makes of the frames of each video; None where it refuses them, or reads no videos.

    Where the inputs have no name for the pixels of videos, they are those of images (InternVL).
    """
    make = getattr(processor, "video_processor", None)
    usual = usual_settings(processor, "videos_kwargs")
    found = None if make is None else made(make, videos, {**usual, **settings})
    if found is None or VIDEO in inputs or VIDEO not in found:
        return found
    return {"pixel_values": found[VIDEO].flatten(0, 1)}


def same(made: Mapping[str, Any] | None, inputs: Mapping[str, Any], share: float) -> bool:
    """Whether all tensors that both hold agree, pixels included, up to a share of their variance."""
    if made is None:
        return False
    both = [(made[name], inputs[name]) for name in made if isinstance(inputs.get(name), Tensor)]
    same = all(
        isinstance(one, Tensor) and one.shape == other.shape and _equal(one, other, share) for one, other in both
    )
    return same and any(other.is_floating_point() for _, other in both)


def _equal(made: Tensor, given: Tensor, share: float) -> bool:
    one, other = made.to(given), given
    if not other.is_floating_point():
        return torch.equal(one, other)
    one, other = one.float(), other.float()
    return bool((one - other).square().mean() <= share * one.var(correction=0))
