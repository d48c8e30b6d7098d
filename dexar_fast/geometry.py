"""Which keys of the sequence are visual, and which patch of the image each of them stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexar_fast.errors import InputError, ModelError

PLACEHOLDERS = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")


Box = tuple[float, float, float, float]


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
    """

    image: int
    start: int
    rows: int
    columns: int
    box: Box | None = None
    row_stride: int | None = None
    frames: int = 1

    @property
    def cells(self) -> NDArray[np.int64]:
        """The visual token of each cell, [rows, columns]."""
        stride = self.columns if self.row_stride is None else self.row_stride
        return self.start + np.arange(self.rows)[:, None] * stride + np.arange(self.columns)

    @property
    def images(self) -> range:
        """The images the grid covers."""
        return range(self.image, self.image + self.frames)


def visual_token_ids(config: Any) -> list[int]:
    """The placeholder ids a model's config names for images and video frames."""
    ids = [getattr(config, name, None) for name in PLACEHOLDERS]
    found = sorted({int(i) for i in ids if i is not None})
    if not found:
        raise ModelError(
            f"{type(config).__name__} names no image token ({', '.join(PLACEHOLDERS)}): dexar_fast explains models "
            "that read images as placeholder tokens in the prompt"
        )
    return found


def visual_positions(config: Any, input_ids: Tensor) -> Tensor:
    """Positions [N] int64 in input_ids [1, P] that hold an image or video placeholder (method.md section 6)."""
    placeholders = torch.tensor(visual_token_ids(config), device=input_ids.device)
    positions = torch.isin(input_ids[0], placeholders).nonzero()[:, 0]
    if len(positions) == 0:
        raise InputError("the prompt holds no image token: pass an image, or put the model's image token in the prompt")
    return positions


def square_grids(positions: Tensor, inputs: Mapping[str, Any], images: int) -> tuple[Grid, ...]:
    """One square grid per image where each image is a square input and a square run of visual tokens.

    Args:
        positions: [N] visual positions in ascending order.
        inputs: the processor's output; only the shape of `pixel_values` [images, channels, height, width] is read.
        images: how many images the prompt holds.
    """
    pixels = inputs.get("pixel_values")
    runs = _runs(positions.tolist())
    if (
        pixels is None
        or pixels.ndim != 4
        or pixels.shape[2] != pixels.shape[3]
        or not pixels.shape[0] == len(runs) == images
    ):
        return ()
    sides = [math.isqrt(length) for _, length in runs]
    if any(side * side != length for side, (_, length) in zip(sides, runs, strict=True)):
        return ()
    return tuple(Grid(i, start, side, side) for i, ((start, _), side) in enumerate(zip(runs, sides, strict=True)))


def crop_box(size: tuple[int, int], image_processor: Any) -> Box | None:
    """What of an image of `size` (width, height) a model sees; None is all of it.

    A processor that brings the shortest edge to a length and crops the centre (LLaVA-1.5) cuts the rest off. The box is
    in pixels of the original image; it reaches beyond the image where the crop pads.
    """
    edge = (getattr(image_processor, "size", None) or {}).get("shortest_edge")
    crop = getattr(image_processor, "crop_size", None)
    if not getattr(image_processor, "do_center_crop", False) or not edge or not crop:
        return None
    scale = edge / min(size) if getattr(image_processor, "do_resize", True) else 1.0
    width, height = crop["width"] / scale, crop["height"] / scale
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


def _runs(positions: list[int]) -> list[tuple[int, int]]:
    """(first visual token, length) of each run of consecutive positions."""
    starts = [n for n, p in enumerate(positions) if n == 0 or p != positions[n - 1] + 1]
    ends = [*starts[1:], len(positions)]
    return [(start, end - start) for start, end in zip(starts, ends, strict=True)]
