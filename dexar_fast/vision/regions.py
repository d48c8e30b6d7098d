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

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """The value of each cell, [rows, columns]: every region as it is seen from at most 256 cells across."""
        step = -(-max(self.labels.shape) // MOST_ACROSS)
        return self.start + self.labels[step // 2 :: step, step // 2 :: step].astype(np.int64)

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
