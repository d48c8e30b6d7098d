"""The pictures of a request, cut into regions together, and shown with some of them hidden."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from dexar_fast.methods.cut.hiding import cover, hidden
from dexar_fast.methods.cut.labels import Labels, Picture, patches, relabelled, slic, slico, whole_numbers
from dexar_fast.vision.grid import Grid
from dexar_fast.vision.regions import Cells, Regions

SEGMENTATIONS = ("grid", "slico", "slic")


@dataclass(frozen=True)
class Divided:
    """Pictures cut into N regions together.

    Attributes:
        pictures: uint8 [height, width, 3] of each.
        labels: int32 [height, width] of each: the region of each pixel, from 0 to N - 1. A region may lie in several.
        fill: what stands where a region is hidden.
        frames: how many of the pictures, the last ones, are frames of a video.
    """

    pictures: list[Picture]
    labels: list[Labels]
    fill: str
    frames: int = 0

    @cached_property
    def count(self) -> int:
        """N."""
        return 1 + max(int(labels.max()) for labels in self.labels)

    @cached_property
    def areas(self) -> Tensor:
        """[N] float64: the share of all pixels that each region covers; the pictures weigh alike."""
        shares = [np.bincount(labels.ravel(), minlength=self.count) / labels.size for labels in self.labels]
        return torch.from_numpy(np.mean(shares, axis=0))

    def shown(self, revealed: Tensor) -> list[Image.Image]:
        """The pictures where their regions are revealed, bool [N], and covered elsewhere."""
        return [
            Image.fromarray(hidden(picture, labels, revealed.numpy(), covered))
            for picture, labels, covered in zip(self.pictures, self.labels, self._covers, strict=True)
        ]

    def revealing(self, seen: Tensor, revealed: Tensor) -> Tensor:
        """bool [B, N]: of the M seen regions those that are revealed, bool [B, M], and all that are not seen."""
        whole = torch.ones(len(revealed), self.count, dtype=torch.bool)
        whole[:, seen] = revealed
        return whole

    def white(self, revealed: Tensor) -> list[Image.Image]:
        """The same of pictures that are white, and black where they are hidden: to see what the processor keeps."""
        grey = revealed.numpy() * np.uint8(255)
        return [Image.fromarray(np.repeat(grey[labels][..., None], 3, axis=2)) for labels in self.labels]

    @property
    def cells(self) -> tuple[Cells, ...]:
        """Where the values of a map of N regions lie."""
        first_frame, starts = len(self.labels) - self.frames, [int(labels.min()) for labels in self.labels]
        return tuple(
            Regions(i, start, labels - np.int32(start), i >= first_frame)
            for i, (start, labels) in enumerate(zip(starts, self.labels, strict=True))
        )

    @cached_property
    def _covers(self) -> list[Picture]:
        return [cover(picture, self.fill) for picture in self.pictures]


def divided(
    images: Sequence[Image.Image],
    grids: Sequence[Cells],
    count: int,
    segmentation: str,
    labels: Any,
    fill: str,
    frames: int = 0,
) -> Divided:
    """Pictures cut into about `count` regions each, or as `labels` say.

    Raises:
        InputError: no regions, an unknown segmentation, or labels that do not fit the pictures.
        LibraryError: the library of the superpixels is missing.
    """
    pictures = [np.asarray(image) for image in images]
    cut = _cut(pictures, grids, count, segmentation) if labels is None else _fitting(labels, pictures)
    return Divided(pictures, cut, fill, frames)


def _cut(pictures: list[Picture], grids: Sequence[Cells], count: int, segmentation: str) -> list[Labels]:
    count = knobs.whole("regions", count, 1)
    knobs.one_of("segmentation", segmentation, SEGMENTATIONS)
    if segmentation == "grid":
        return _through(
            _patches(picture, [g for g in grids if i in g.images], count) for i, picture in enumerate(pictures)
        )
    superpixels = slico if segmentation == "slico" else slic
    return _through(superpixels(picture, count) for picture in pictures)


def _through(cut: Iterable[Labels]) -> list[Labels]:
    """Maps with regions of their own, each from 0, counted through."""
    found, start = [], 0
    for labels in cut:
        found.append(labels + np.int32(start))
        start += int(labels.max()) + 1
    return found


def label_maps(labels: Any) -> list[NDArray[np.integer[Any]]]:
    """A label map, or each of a list of them, as an array. Raises InputError as `relabelled`."""
    many = isinstance(labels, Sequence) and _depth(labels) > 2
    return [whole_numbers(each) for each in (labels if many else [labels])]


def _depth(labels: Any) -> int:
    """How many dimensions nested lists have along their first items; arrays count with all of theirs."""
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        return np.ndim(labels)
    return 1 + (_depth(labels[0]) if labels else 0)


def _fitting(labels: Any, pictures: list[Picture]) -> list[Labels]:
    """Maps [height, width] for a picture each, or [frames, height, width] for several that share their regions."""
    maps = _through(relabelled(each) for each in label_maps(labels))
    found = [one for each in maps for one in (each if each.ndim == 3 else [each])]
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
