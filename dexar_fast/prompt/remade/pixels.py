"""The pixels of a prompt, made again from its pictures or from others of the same sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.prompt.remade.making import CLOSE, VIDEO, is_pixels, made, same, usual_settings, variants
from dexar_fast.prompt.remade.ways import Way, Ways


class Pixels:
    """Makes the pixels of a prompt from other pictures of the same sizes.

    Attributes:
        frames: how many of the pictures, the last ones, are frames of videos.
    Raises:
        InputError: no processor for them, no pictures, or pictures of which the processor makes other pixels than the
            inputs hold.
    """

    def __init__(self, processor: Any, inputs: Mapping[str, Any], images: Sequence[Image.Image]) -> None:
        _check(processor, inputs, images)
        self._processor = processor
        self._inputs = inputs
        self._settings, self._way, found = self._found(images)
        self.frames = self._way.frames
        self.names = [name for name, value in found.items() if is_pixels(name, value)]

    def of(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """The pixels of other pictures, by the names and in the dtypes of the inputs, on the CPU.

        Raises:
            InputError: the processor cuts these pictures otherwise, so that the prompt does not fit them.
        """
        return self._checked(self._way.make(images))

    def of_each(self, prompts: Sequence[Sequence[Image.Image]]) -> list[dict[str, Tensor]]:
        """The same for several prompts; those of one picture that has a row of its own go through in one call."""
        if len(prompts) > 1 and self.frames == 0 and all(len(self._inputs[name]) == 1 for name in self.names):
            found = made(self._processor.image_processor, [one for each in prompts for one in each], self._settings)
            if found is not None and all(len(found[name]) == len(prompts) for name in self.names):
                rows = ({name: found[name][i : i + 1] for name in self.names} for i in range(len(prompts)))
                return [self._checked(row) for row in rows]
        return [self.of(images) for images in prompts]

    def _found(self, images: Sequence[Image.Image]) -> tuple[dict[str, Any], Way, Mapping[str, Any]]:
        """With which settings and how the inputs' pixels were made of the pictures, and what that makes of them."""
        for settings in variants(self._processor.image_processor, usual_settings(self._processor)):
            for way in Ways(self._processor, self._inputs, settings).of(images):
                found = way.make(images)
                if found is not None and same(found, self._inputs, CLOSE):
                    return settings, way, found
        raise InputError("the processor makes other pixels of the pictures than the inputs hold: pass the very ones")

    def _checked(self, found: Mapping[str, Any] | None) -> dict[str, Tensor]:
        if found is None or any(found[name].shape != self._inputs[name].shape for name in self.names):
            raise InputError("the processor cuts the picture otherwise once parts of it are hidden")
        return {name: found[name].to(self._inputs[name].dtype) for name in self.names}


def _check(processor: Any, inputs: Mapping[str, Any], images: Sequence[Image.Image]) -> None:
    """Raises InputError for what is missing."""
    if not images or getattr(processor, "image_processor", None) is None:
        raise InputError("hiding parts of a picture takes the picture and the model's processor: pass both")
    if VIDEO in inputs and getattr(processor, "video_processor", None) is None:
        raise InputError(
            "hiding parts of a video takes a processor that reads videos: pass the model's own, as a whole"
        )
