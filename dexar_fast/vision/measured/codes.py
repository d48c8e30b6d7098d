"""Black and white pictures whose stripes count in Gray code, each with its inverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.vision.grid import Size

JOINED = (1, 2, 4)  # frames that one visual token may stand for
DEARER = 0.05  # by how much more frames in a step must fit better
Signs = NDArray[np.int8]  # of each place, 1 where it is white and -1 where it is black


def stripes(bits: int) -> Signs:
    """[bits, 2 ** bits] the Gray code of each stripe; the first bit is that of the halves."""
    numbers = np.arange(2**bits)
    gray = numbers ^ numbers >> 1
    return (2 * (gray >> np.arange(bits)[::-1, None] & 1) - 1).astype(np.int8)


def bits(cells: float, pixels: int) -> int:
    """How many bits tell halves of so many cells apart; a stripe has two pixels or more."""
    wanted = math.ceil(math.log2(max(1.0, cells))) + 1
    return max(1, min(wanted, int(math.log2(max(2, pixels / 2)))))


def stretched(signs: NDArray[np.number], size: Size) -> Signs:
    """[height, width] the signs [rows, columns] over a picture, pixel by pixel."""
    rows = np.arange(size[1]) * signs.shape[0] // size[1]
    columns = np.arange(size[0]) * signs.shape[1] // size[0]
    return signs[rows[:, None], columns]


def textured(signs: Signs, grain: int) -> Signs:
    """[height, width] random blocks of `grain` pixels where the sign is 1, and their inverse where it is -1."""
    height, width = signs.shape
    rows, columns = -(-height // grain), -(-width // grain)
    blocks = np.random.default_rng(0).integers(0, 2, (rows, columns), np.int8) * 2 - 1
    return signs * blocks.repeat(grain, 0).repeat(grain, 1)[:height, :width]


def picture(signs: Signs) -> Image.Image:
    """Of signs [height, width]: 1 is white, -1 is black."""
    return Image.fromarray(np.where(signs > 0, np.uint8(255), np.uint8(0))).convert("RGB")


@dataclass(frozen=True)
class Codes:
    """The stripes of each of several pictures: how many bits tell its columns, and its rows."""

    sizes: Sequence[Size]
    across: int
    down: int
    images: int  # bits that tell the pictures apart
    stills: int  # how many of them, the first, are no frames of a video

    @classmethod
    def of(cls, sizes: Sequence[Size], tokens: int, stills: int | None = None) -> Codes:
        """For pictures of these sizes that make so many visual tokens; `stills` as below, None: all."""
        each = math.sqrt(tokens)
        widest = max(max(1.0, width / height) for width, height in sizes)
        tallest = max(max(1.0, height / width) for width, height in sizes)
        across = min(bits(each * math.sqrt(widest), width) for width, _ in sizes)
        down = min(bits(each * math.sqrt(tallest), height) for _, height in sizes)
        return cls(sizes, across, down, math.ceil(math.log2(len(sizes))), len(sizes) if stills is None else stills)

    def patterns(self) -> list[list[Signs]]:
        """Of each code the signs [height, width] of each picture: all bits across, all down, those of the pictures."""
        across = [[stretched(row[None], size) for size in self.sizes] for row in stripes(self.across)]
        down = [[stretched(row[:, None], size) for size in self.sizes] for row in stripes(self.down)]
        which = [
            [np.full(size[::-1], sign) for sign, size in zip(row, self.sizes, strict=False)] for row in self._which()
        ]
        return [*across, *down, *which]

    def images_of(
        self, shares: NDArray[np.float64], answered: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[N] the first picture that each token saw, and how many in a row: a step of a video may join several frames.

        Args:
            shares: [N, bits] of white in the codes of the pictures.
            answered: [N] the tokens that tell how many frames a step joins.
        """
        tried = [self._nearest(shares, joined) for joined in JOINED if joined == 1 or self.stills < len(self.sizes)]
        costs = [distance[answered].mean() + DEARER * n for n, (distance, _) in enumerate(tried)]
        best = tried[int(np.argmin(costs))][1]
        return best[:, 0], best[:, 1]

    def _nearest(self, shares: NDArray[np.float64], joined: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """If so many frames make a step: how far [N] the shares are from what they can be, and the steps [N, 2]."""
        count, signs = len(self.sizes), self._which()
        steps = [(image, 1) for image in range(self.stills)]
        steps += [(frame, min(joined, count - frame)) for frame in range(self.stills, count, joined)]
        ends = [signs[:, first : first + length] for first, length in steps]
        low, high = (np.array([extreme(each, axis=1) for each in ends]) for extreme in (np.min, np.max))
        off = shares[:, None] - shares[:, None].clip(low, high)  # [N, steps, bits]: a step may weigh its frames anyhow
        distance = (off**2).sum(2)
        return distance.min(1), np.array(steps)[distance.argmin(1)]

    def _which(self) -> Signs:
        return stripes(self.images) if self.images else np.empty((0, 1), np.int8)
