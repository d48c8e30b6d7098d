"""A grid of visual tokens over an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Size = tuple[int, int]  # (width, height) in pixels


@dataclass(frozen=True)
class Grid:
    """Visual tokens that tile a box of an image, row by row.

    Cell (row, column) is visual token `start + row * row_stride + column`, counted in the order of the sequence.

    Attributes:
        image: the first image the grid covers; the frames of a video count as images, behind all others.
        start: the visual token of cell (0, 0).
        rows, columns: cells.
        box: (left, top, right, bottom) of all cells in pixels of the original image; None is the whole image. It may
            reach beyond the image where the model pads.
        row_stride: visual tokens from one row to the next; None is `columns`. More where a newline feature ends a row.
        frames: how many images in a row the grid covers: a cell of a video may stand for two frames.
        video: whether they are frames of a video.
    """

    image: int
    start: int
    rows: int
    columns: int
    box: Box | None = None
    row_stride: int | None = None
    frames: int = 1
    video: bool = False

    @property
    def cells(self) -> NDArray[np.int64]:
        """The visual token of each cell, [rows, columns]."""
        stride = self.columns if self.row_stride is None else self.row_stride
        return self.start + np.arange(self.rows)[:, None] * stride + np.arange(self.columns)

    @property
    def images(self) -> range:
        """The images the grid covers."""
        return range(self.image, self.image + self.frames)
