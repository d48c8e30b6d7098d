"""The pictures of a request, cut into regions together, and shown with some of them hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.methods import knobs
from dexar_fast.methods.eagle.cut.hiding import cover, hidden
from dexar_fast.methods.eagle.cut.labels import Labels, Picture, patches, relabelled, slic, slico, whole_numbers
from dexar_fast.vision.grid import Grid
from dexar_fast.vision.regions import Cells, Regions

SEGMENTATIONS = ("grid", "slico", "slic")


@dataclass(frozen=True)
class Divided:
    """Pictures whose regions are counted through, N in all.

    Attributes:
        pictures: uint8 [height, width, 3] of each.
        labels: int32 [height, width] of each: its own regions, from 0.
        fill: what stands where a region is hidden.
    """

    pictures: list[Picture]
    labels: list[Labels]
    fill: str

    @cached_property
    def starts(self) -> list[int]:
        """The number of each picture's region 0; behind them N."""
        return [0, *np.cumsum([int(labels.max()) + 1 for labels in self.labels]).tolist()]

    @cached_property
    def areas(self) -> Tensor:
        """[N] float64: the share of all pixels that each region covers; the pictures weigh alike."""
        shares = [np.bincount(labels.ravel()) / labels.size / len(self.labels) for labels in self.labels]
        return torch.from_numpy(np.concatenate(shares))

    def shown(self, revealed: Tensor) -> list[Image.Image]:
        """The pictures where their regions are revealed, bool [N], and covered elsewhere."""
        parts = np.split(revealed.numpy(), self.starts[1:-1])
        return [
            Image.fromarray(hidden(picture, labels, part, covered))
            for picture, labels, part, covered in zip(self.pictures, self.labels, parts, self._covers, strict=True)
        ]

    def revealing(self, seen: Tensor, revealed: Tensor) -> Tensor:
        """bool [B, N]: of the M seen regions those that are revealed, bool [B, M], and all that are not seen."""
        whole = torch.ones(len(revealed), self.starts[-1], dtype=torch.bool)
        whole[:, seen] = revealed
        return whole

    def white(self, revealed: Tensor) -> list[Image.Image]:
        """The same of pictures that are white, and black where they are hidden: to see what the processor keeps."""
        parts = np.split(revealed.numpy(), self.starts[1:-1])
        return [
            Image.fromarray(np.repeat(part[labels][..., None] * np.uint8(255), 3, axis=2))
            for labels, part in zip(self.labels, parts, strict=True)
        ]

    @property
    def cells(self) -> tuple[Cells, ...]:
        """Where the values of a map of N regions lie."""
        return tuple(Regions(i, self.starts[i], labels) for i, labels in enumerate(self.labels))

    @cached_property
    def _covers(self) -> list[Picture]:
        return [cover(picture, self.fill) for picture in self.pictures]


def divided(
    images: Sequence[Image.Image], grids: Sequence[Cells], count: int, segmentation: str, labels: Any, fill: str
) -> Divided:
    """Pictures cut into about `count` regions each, or as `labels` say, a map for each picture.

    Raises:
        InputError: no regions, an unknown segmentation, or labels that do not fit the pictures.
        LibraryError: the library of the superpixels is missing.
    """
    pictures = [np.asarray(image) for image in images]
    if labels is not None:
        return Divided(pictures, _fitting(labels, pictures), fill)
    count = knobs.whole("regions", count, 1)
    knobs.one_of("segmentation", segmentation, SEGMENTATIONS)
    if segmentation == "grid":
        cut = [_patches(picture, [g for g in grids if i in g.images], count) for i, picture in enumerate(pictures)]
    else:
        superpixels = slico if segmentation == "slico" else slic
        cut = [superpixels(picture, count) for picture in pictures]
    return Divided(pictures, cut, fill)


def label_maps(labels: Any) -> list[NDArray[np.integer[Any]]]:
    """A label map, or each of a list of them, as an array. Raises InputError as `relabelled`."""
    many = isinstance(labels, Sequence) and _depth(labels) == 3
    return [whole_numbers(each) for each in (labels if many else [labels])]


def _depth(labels: Any) -> int:
    """How many dimensions nested lists have along their first items; arrays count with all of theirs."""
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        return np.ndim(labels)
    return 1 + (_depth(labels[0]) if labels else 0)


def _fitting(labels: Any, pictures: list[Picture]) -> list[Labels]:
    found = [relabelled(each) for each in label_maps(labels)]
    sizes, wanted = [list(each.shape) for each in found], [list(picture.shape[:2]) for picture in pictures]
    if sizes != wanted:
        raise InputError(f"labels must be one map for each picture, {wanted}, not {sizes}")
    return found


def _patches(picture: Picture, grids: list[Cells], count: int) -> Labels:
    """Patches along the edges of the visual tokens where one grid covers the picture, else of equal size."""
    height, width = picture.shape[:2]
    if len(grids) == 1 and isinstance(grids[0], Grid):
        return _aligned(height, width, grids[0], count)
    rows, columns = _shape(count, height, width)
    return patches(height, width, rows, columns)


def _aligned(height: int, width: int, grid: Grid, count: int) -> Labels:
    """Blocks of the grid's cells. What lies outside its box is a region of its own, which the model does not see."""
    left, top, right, bottom = grid.box or (0, 0, width, height)
    rows, columns = _shape(count, grid.rows, grid.columns)
    down = _blocks(height, top, bottom, grid.rows, rows)
    across = _blocks(width, left, right, grid.columns, columns)
    labels = down[:, None] * columns + across
    labels[(down < 0), :] = rows * columns
    labels[:, (across < 0)] = rows * columns
    return relabelled(labels)


def _blocks(pixels: int, low: float, high: float, cells: int, blocks: int) -> NDArray[np.int64]:
    """[pixels]: which of `blocks` blocks of cells each pixel's centre lies in; -1 outside."""
    position = (np.arange(pixels) + 0.5 - low) / (high - low) * cells
    edges = np.round(np.linspace(0, cells, blocks + 1))
    block = np.searchsorted(edges, position, side="right") - 1
    return np.where((position >= 0) & (position < cells), block, -1)


def _shape(count: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of about `count` patches that are about square; no more than there are cells."""
    rows = min(height, max(1, round((count * height / width) ** 0.5)))
    return rows, min(width, max(1, round(count / rows)))
