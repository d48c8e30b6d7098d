"""The ways in which a processor can have made given inputs of pictures: as images, as frames of videos, or as both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image
from torch import Tensor

from dexar_fast.prompt.remade.making import AS_GIVEN, IMAGES, VIDEO, made, made_of_videos, nested
from dexar_fast.prompt.remade.sharing import MANY, Clips, clips, images_of, parted, unpadded
from dexar_fast.prompt.remade.weaving import Woven, announced, named_as_images
from dexar_fast.vision.blocks import Shown

Pictures = Sequence[Image.Image]
Make = Callable[[Pictures], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Way:
    """What pictures are taken for, and what the processor makes of such; None where it refuses them.

    Attributes:
        frames: how many of the pictures, the last, are frames of videos.
        shown: None where the processor takes some of the frames alone, and does not say which.
    """

    make: Make
    frames: int
    shown: Shown | None


@dataclass(frozen=True)
class Ways:
    """A processor, the inputs that it made, and the settings of its image processor in that call.

    Attributes:
        told: the frames of each video, where the inputs say it.
    """

    processor: Any
    inputs: Mapping[str, Any]
    settings: Mapping[str, Any]
    told: Clips = ()

    def of(self, pictures: Pictures) -> Iterator[Way]:
        """Those that are worth a try, the likely ones first."""
        if VIDEO in self.inputs:
            yield from self._beside_images(len(pictures))
            return
        if getattr(self.processor, "video_processor", None) is None:
            yield from self._as_images(pictures, 0)
            return
        likely, count = announced(self.processor, self.inputs), len(pictures)
        others = range(count + 1) if count <= MANY and likely == 0 else (0, count)
        for frames in dict.fromkeys([min(likely, count), *others]):
            yield from self._as_images(pictures, frames)
        yield Way(self._sampled, len(pictures), None)

    def _beside_images(self, pictures: int) -> Iterator[Way]:
        """Where videos have a name of their own in the inputs."""
        told = 0 < sum(self.told) <= pictures
        for images in [pictures - sum(self.told)] if told else images_of(pictures, self.inputs):
            frames = pictures - images
            for found in [self.told] if told else clips(frames, self.inputs):
                yield Way(partial(self._both, found, AS_GIVEN), frames, Shown(pictures, found))
            yield Way(partial(self._both, (frames,), {}), frames, None)

    def _as_images(self, pictures: Pictures, frames: int) -> Iterator[Way]:
        """Where frames stand as images."""
        rows, pixels, images = unpadded(self.inputs), self.inputs.get(IMAGES), len(pictures) - frames
        if frames == 0:
            yield Way(self._images, 0, Shown(images))
        elif rows is not None and (images, frames) == (0, sum(rows)):
            yield Way(partial(self._both, rows, AS_GIVEN), frames, Shown(frames, rows, (True,) * frames))
        elif rows is None and isinstance(pixels, Tensor) and pixels.ndim == 4:
            woven = Woven(self.processor, self.settings)
            order = woven.order(pictures[:images], pictures[images:], pixels)
            if order is not None:
                found = self.told if sum(self.told) == frames else (frames,)
                yield Way(partial(woven.made, order), frames, Shown(len(pictures), found, order))

    def _images(self, pictures: Pictures) -> Mapping[str, Any] | None:
        return made(self.processor.image_processor, nested([*pictures], self.inputs), self.settings)

    def _sampled(self, pictures: Pictures) -> Mapping[str, Any] | None:
        return named_as_images(made_of_videos(self.processor, [[*pictures]], {}))

    def _both(self, clips: Clips, sampling: Mapping[str, Any], pictures: Pictures) -> Mapping[str, Any] | None:
        images = len(pictures) - sum(clips)
        beside = self._images(pictures[:images]) if images else {}
        video = made_of_videos(self.processor, parted(pictures[images:], clips), sampling)
        return None if video is None or beside is None else {**beside, **video}
