"""The pixels of a prompt, made again from its pictures or from others of the same sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError

CLOSE = 0.001  # of the variance of the pixels: how far another backend's resize may be off, on average


class Pixels:
    """Makes the pixels of a prompt from other pictures of the same sizes.

    Raises:
        InputError: no image processor, no pictures, or pictures of which it makes other pixels than the inputs hold.
    """

    def __init__(self, processor: Any, inputs: Mapping[str, Any], images: Sequence[Image.Image]) -> None:
        make = getattr(processor, "image_processor", None)
        if make is None or not images:
            raise InputError("hiding parts of a picture takes the picture and the model's processor: pass both")
        self._make: Callable[..., Mapping[str, Any]] = make
        self._settings = usual_settings(processor)
        self._inputs = inputs
        found = made(self._make, nested(list(images), inputs), self._settings)
        if found is None or not same(found, inputs, CLOSE):
            raise InputError(
                "the processor makes other pixels of the pictures than the inputs hold: pass the very ones"
            )
        self.names = [name for name, value in found.items() if isinstance(value, Tensor) and value.is_floating_point()]

    def of(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """The pixels of other pictures, by the names and in the dtypes of the inputs, on the CPU.

        Raises:
            InputError: the processor cuts these pictures otherwise, so that the prompt does not fit them.
        """
        return self._checked(made(self._make, nested(list(images), self._inputs), self._settings))

    def of_each(self, prompts: Sequence[Sequence[Image.Image]]) -> list[dict[str, Tensor]]:
        """The same for several prompts; those of one picture that has a row of its own go through in one call."""
        if len(prompts) > 1 and all(len(self._inputs[name]) == 1 for name in self.names):
            found = made(self._make, [image for images in prompts for image in images], self._settings)
            if found is not None and all(len(found[name]) == len(prompts) for name in self.names):
                rows = ({name: found[name][i : i + 1] for name in self.names} for i in range(len(prompts)))
                return [self._checked(row) for row in rows]
        return [self.of(images) for images in prompts]

    def _checked(self, found: Mapping[str, Any] | None) -> dict[str, Tensor]:
        if found is None or any(found[name].shape != self._inputs[name].shape for name in self.names):
            raise InputError("the processor cuts the picture otherwise once parts of it are hidden")
        return {name: found[name].to(self._inputs[name].dtype) for name in self.names}


def usual_settings(processor: Any) -> dict[str, Any]:
    """The settings that the combined processor passes in every call, over those of its image processor."""
    older = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {})
    return {**older.get("images_kwargs", {}), **(getattr(processor, "images_kwargs", None) or {})}


def nested(images: list[Image.Image], inputs: Mapping[str, Any]) -> Any:
    """LLaVA-OneVision makes other pixels of images that it is told belong together."""
    together = inputs.get("batch_num_images")
    return [images] if isinstance(together, Tensor) and together.tolist() == [len(images)] else images


def made(make: Callable[..., Mapping[str, Any]], images: Any, settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a processor makes of the images; None where it refuses them."""
    try:
        return make(images, return_tensors="pt", **settings)
    except Exception:  # processors raise any kind of error, for a picture or a setting they do not take
        return None


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
