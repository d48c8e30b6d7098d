"""Regions of an image or a frame of a video, in the place of a grid's cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dexar_fast.vision.grid import Box, Grid

MOST_ACROSS = 256  # cells that a map of regions is drawn with


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions that partition an image. Region r is value `start + r` of a map; it may lie in other images, too.

    Equal to others of the same image, start and labels.

    Attributes:
        image: the image they partition; the frames of a video count as images, behind all others.
        start: the value of region 0.
        labels: [height, width] int32 in pixels of the image, or coarser: the region of each, from 0.
        video: whether the image is a frame of a video.
    """

    image: int
    start: int
    labels: NDArray[np.int32]
    video: bool = False

    box: ClassVar[Box | None] = None  # the whole image
    frames: ClassVar[int] = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Regions) and self._key == other._key and np.array_equal(self.labels, other.labels)

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[int, int, bool, tuple[int, ...]]:
        return self.image, self.start, self.video, self.labels.shape

    @property
    def step(self) -> int:
        """How many labels lie from one cell to the next; the first cell is label `step // 2` of each side."""
        return -(-max(self.labels.shape) // MOST_ACROSS)

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """The value of each cell, [rows, columns]: every region as it is seen from at most 256 cells across."""
        first, step = self.step // 2, self.step
        return self.start + self.labels[first::step, first::step].astype(np.int64)

    @property
    def rows(self) -> int:
        return self.cells.shape[0]

    @property
    def columns(self) -> int:
        return self.cells.shape[1]

    @property
    def images(self) -> range:
        """The image they partition."""
        return range(self.image, self.image + 1)


Cells = Grid | Regions
"""What says where the values of a map lie."""
