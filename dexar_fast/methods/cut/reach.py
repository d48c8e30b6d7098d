"""Which values of the pixels each region of a picture reaches through the processor, tried region by region."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dexar_fast.methods.cut.divided import Divided
from dexar_fast.methods.cut.labels import Picture

LARGEST = 64 * 2**20  # bytes of pixels with each set of colours revealed
COLOURS = 6  # at most
GREY, WHITE = 128, 255  # not black: what a kernel subtracts would be clipped

Process = Callable[[Sequence[Image.Image]], Mapping[str, Tensor]]


def coloured(cut: Divided, process: Process) -> NDArray[np.int64] | None:
    """[colours, P]: the one region of each colour that reaches a value, N where none does. None: too many colours, or
    as many values as the pictures have."""
    grey = [np.full_like(picture, GREY) for picture in cut.pictures]
    ground = _values(grey, process)
    if ground.size >= sum(picture.size for picture in grey):
        return None
    regions, margin = cut.count, _margin(cut, ground.size)
    most = min(COLOURS, (LARGEST // ground.nbytes).bit_length() - 1)
    found = np.full((most, ground.size), regions)
    for region in range(regions):
        reached = _values(_lit(cut, grey, region, margin), process) != ground
        free = np.flatnonzero((found[:, reached] == regions).all(1))
        if len(free) == 0:
            return None
        found[free[0], reached] = region
    return found[(found < regions).any(1)]


def flat(pixels: Mapping[str, Tensor]) -> NDArray[np.generic]:
    """[P], all values in a row; float32 where they have fewer bits."""
    wide = (value.to(torch.promote_types(value.dtype, torch.float32)) for value in pixels.values())
    return np.concatenate([value.numpy().ravel() for value in wide])


def _values(pictures: list[Picture], process: Process) -> NDArray[np.generic]:
    return flat(process([Image.fromarray(picture) for picture in pictures]))


def _margin(cut: Divided, values: int) -> int:
    """How far a bicubic kernel reads. Widened by so much, no region has a faint edge that rounding hides."""
    return 2 * ceil((sum(picture.size for picture in cut.pictures) / values) ** 0.5)


def _lit(cut: Divided, grey: list[Picture], region: int, margin: int) -> list[Picture]:
    """Grey pictures, white in a region and around it."""
    insides = (_widened(labels == region, margin) for labels in cut.labels)
    return [
        np.where(inside[..., None], np.uint8(WHITE), picture) for inside, picture in zip(insides, grey, strict=True)
    ]


def _widened(mask: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """The mask, and what lies at most so many rows and columns from it."""
    return _along_rows(_along_rows(mask, margin).T, margin).T


def _along_rows(mask: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    sums = np.cumsum(np.pad(mask, [(0, 0), (margin + 1, margin)]), 1)
    return sums[:, 2 * margin + 1 :] > sums[:, : -2 * margin - 1]
