"""What a family reads its layout from, and what it gives back: an image or a video as a block of visual tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dexar_fast.vision.grid import Box, Grid, Size

NO_PROCESSOR = "how its processor cuts an image is not known: make the Explainer with the processor"


class UnknownLayout(Exception):
    """The layout cannot be told from what is at hand; the message says why."""


@dataclass(frozen=True)
class Shown:
    """What the pictures given are: images, then the frames of videos.

    Attributes:
        pictures: how many there are.
        clips: the frames of each video.
        order: where frames stand as images, of each picture in the order of the prompt whether it is a frame.
    """

    pictures: int
    clips: tuple[int, ...] = ()
    order: tuple[bool, ...] | None = None

    @property
    def images(self) -> int:
        """How many of the pictures, the first, are no frames."""
        return self.pictures - sum(self.clips)


@dataclass(frozen=True)
class Prompt:
    """What a family reads its layout from."""

    config: Any
    image_processor: Any
    inputs: Mapping[str, Any]
    sizes: Sequence[Size] | None  # of the original images, then of the frames of videos
    video: list[bool]  # of each visual token, whether it belongs to a video
    shown: Shown | None = None  # None: not known
    notes: list[str] = field(default_factory=list)  # what was assumed

    def numbers(self, name: str, columns: int) -> list[list[int]]:
        """One of the processor's outputs: positive numbers [images, columns]."""
        found = self.output(name)
        if found.ndim != 2 or found.shape[1] != columns or found.is_floating_point() or not bool((found > 0).all()):
            raise UnknownLayout(f"{name} is not [images, {columns}] of positive integers")
        return found.tolist()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one of the processor's outputs: images or video frames, [..., channels, height, width]."""
        found = self.output(name)
        if found.ndim < 4 or 0 in found.shape:
            raise UnknownLayout(f"{name} is not [..., channels, height, width]")
        return tuple(found.shape)

    def output(self, name: str) -> Tensor:
        """One of the processor's outputs, as it is."""
        if not isinstance(self.inputs.get(name), Tensor):
            raise UnknownLayout(f"the inputs hold no tensor {name}")
        return self.inputs[name]

    def vision(self, name: str) -> int:
        """A number in the config of the vision tower; the first if there are several."""
        value = getattr(getattr(self.config, "vision_config", None), name, None)
        if isinstance(value, Sequence) and value:
            value = value[0]
        if not isinstance(value, int) or value < 1:
            raise UnknownLayout(f"the config of its vision tower names no {name}")
        return value

    def covered(self, pixels: int) -> float:
        """The share of a side of `pixels` that whole patches cover: the rest, at the right and below, is not seen."""
        patch = self.vision("patch_size")
        return pixels // patch * patch / pixels

    def known(self, box: Box | None) -> Box | None:
        """The box; None where the original images are not known."""
        return None if self.sizes is None else box

    def check_sizes(self, stated: Sequence[Size]) -> None:
        """Raises UnknownLayout if the given images have other sizes than the inputs state, in order."""
        given = None if self.sizes is None else list(self.sizes[: len(stated)])
        if given is not None and len(given) == len(stated) and given != list(stated):
            raise UnknownLayout(f"its inputs were made of images of {_list(stated)} pixels, not of {_list(given)}")


@dataclass(frozen=True)
class Block:
    """An image or a video of `length` visual tokens: grids whose `start` and `image` count from the block's own."""

    grids: list[Grid]
    length: int

    @property
    def images(self) -> int:
        """How many images the block stands for."""
        return max(grid.images.stop for grid in self.grids)


Blocks = tuple[list[Block], list[Block]]  # of the images, of the videos
Family = Callable[[Prompt], Blocks]


def square(tokens: int) -> int:
    """The side of a square of `tokens` tokens."""
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise UnknownLayout(f"{tokens} visual tokens do not make a square")
    return side


def whole(size: Size) -> Box:
    """All of an image."""
    return 0, 0, *size


def part(box: Box | None, share: float) -> Box | None:
    """The upper left part of a box; `share` of each side."""
    if box is None:
        return None
    left, top, right, bottom = box
    return left, top, left + share * (right - left), top + share * (bottom - top)


def _list(sizes: Sequence[Size]) -> str:
    return ", ".join(f"{width} x {height}" for width, height in sizes)
