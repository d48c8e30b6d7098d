"""The pixels of a prompt, made again from its pictures or from others of the same sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.prompt.making import AS_GIVEN, CLOSE, VIDEO, made, made_of_videos, nested, same, split, usual_settings

Make = Callable[[Sequence[Image.Image]], Mapping[str, Any] | None]


class Pixels:
    """Makes the pixels of a prompt from other pictures of the same sizes.

    Attributes:
        frames: how many of the pictures, the last ones, are frames of a video.
    Raises:
        InputError: no processor for them, no pictures, several videos, or pictures of which the processor makes other
            pixels than the inputs hold.
    """

    def __init__(self, processor: Any, inputs: Mapping[str, Any], images: Sequence[Image.Image]) -> None:
        _check(processor, inputs, images)
        self._processor = processor
        self._inputs = inputs
        self.frames, self._make, found = self._way(images)
        self.names = [name for name, value in found.items() if isinstance(value, Tensor) and value.is_floating_point()]

    def of(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """The pixels of other pictures, by the names and in the dtypes of the inputs, on the CPU.

        Raises:
            InputError: the processor cuts these pictures otherwise, so that the prompt does not fit them.
        """
        return self._checked(self._make(images))

    def of_each(self, prompts: Sequence[Sequence[Image.Image]]) -> list[dict[str, Tensor]]:
        """The same for several prompts; those of one picture that has a row of its own go through in one call."""
        if len(prompts) > 1 and self.frames == 0 and all(len(self._inputs[name]) == 1 for name in self.names):
            found = self._made([image for images in prompts for image in images])
            if found is not None and all(len(found[name]) == len(prompts) for name in self.names):
                rows = ({name: found[name][i : i + 1] for name in self.names} for i in range(len(prompts)))
                return [self._checked(row) for row in rows]
        return [self.of(images) for images in prompts]

    def _way(self, images: Sequence[Image.Image]) -> tuple[int, Make, Mapping[str, Any]]:
        """How many pictures are frames, what makes the inputs' pixels of all, and what it makes of these."""
        for frames, make in self._ways(images):
            found = make(images)
            if found is not None and same(found, self._inputs, CLOSE):
                return frames, make, found
        mixed = len(images) > 1 and VIDEO not in self._inputs and hasattr(self._processor, "video_processor")
        raise InputError(
            "the processor makes other pixels of the pictures than the inputs hold: pass the very ones"
            + mixed * "; a picture beside a video whose frames stand as pictures cannot be told from them"
        )

    def _ways(self, images: Sequence[Image.Image]) -> Iterator[tuple[int, Make]]:
        """As images; as frames, sampled before the processor got them, or by it."""
        if VIDEO not in self._inputs:
            yield 0, lambda pictures: self._made(nested([*pictures], self._inputs))
        frames = len(split(images, self._inputs)[1] if VIDEO in self._inputs else images)
        for sampling in (AS_GIVEN, {}):
            yield frames, partial(self._with_video, frames, sampling)

    def _with_video(
        self, frames: int, sampling: Mapping[str, Any], pictures: Sequence[Image.Image]
    ) -> Mapping[str, Any] | None:
        """What the processor makes of pictures of which the last are frames."""
        images = [*pictures[: len(pictures) - frames]]
        video = made_of_videos(self._processor, [[*pictures[len(images) :]]], self._inputs, sampling)
        beside = self._made(nested(images, self._inputs)) if images else {}
        return None if video is None or beside is None else {**beside, **video}

    def _made(self, images: Any) -> Mapping[str, Any] | None:
        return made(self._processor.image_processor, images, usual_settings(self._processor))

    def _checked(self, found: Mapping[str, Any] | None) -> dict[str, Tensor]:
        if found is None or any(found[name].shape != self._inputs[name].shape for name in self.names):
            raise InputError("the processor cuts the picture otherwise once parts of it are hidden")
        return {name: found[name].to(self._inputs[name].dtype) for name in self.names}


def _check(processor: Any, inputs: Mapping[str, Any], images: Sequence[Image.Image]) -> None:
    """Raises InputError for what is missing, and for several videos."""
    if not images or getattr(processor, "image_processor", None) is None:
        raise InputError("hiding parts of a picture takes the picture and the model's processor: pass both")
    if VIDEO in inputs and getattr(processor, "video_processor", None) is None:
        raise InputError(
            "hiding parts of a video takes a processor that reads videos: pass the model's own, as a whole"
        )
    if (videos := _videos(inputs)) > 1:
        raise InputError(
            f"the prompt holds {videos} videos, and which frames belong to which is not known: ask about one"
        )


def _videos(inputs: Mapping[str, Any]) -> int:
    grids, pixels = inputs.get("video_grid_thw"), inputs.get(VIDEO)
    if isinstance(grids, Tensor):
        return len(grids)
    return len(pixels) if isinstance(pixels, Tensor) and pixels.ndim == 5 else 0
