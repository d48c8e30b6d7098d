"""Whether grids predict what visual tokens answer to pictures of random blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dexar_fast.vision.grid import Grid, Size
from dexar_fast.vision.measured.codes import Signs, stretched
from dexar_fast.vision.measured.decoding import Floats

BLOCK = 1.4  # cells along a side of a block: larger than a cell, so that most cells see one or two
AGREE = 0.7  # the least correlation; right grids have 0.8 or more, those a cell off 0.6 or less
COARSER = 1.5  # times as large a cell wants blocks of its own: an average of many small ones says little
CHECKED = 64  # cells of each picture, at least, over all pictures of blocks


@dataclass(frozen=True)
class Blocks:
    """Random blocks over each picture, and the grids whose cells are of about their size."""

    signs: list[Signs]  # of each picture, [height, width]
    grids: list[Grid]


def blocks(grids: Sequence[Grid], sizes: Sequence[Size]) -> list[Blocks]:
    """What to show to check these grids: the finest of each picture, and those with larger cells by themselves."""
    found: list[Blocks] = []
    for some in _alike(grids, sizes):
        count = 1 + CHECKED // min(sum(grid.cells.size for grid in some if grid.image == n) for n in _images(some))
        counts = [_count(some, sizes, image) for image in range(len(sizes))]
        for _ in range(count):
            draw = np.random.default_rng(len(found))
            signs = [stretched(_random(draw, *each), size) for each, size in zip(counts, sizes, strict=True)]
            found.append(Blocks(signs, some))
    return found


def _alike(grids: Sequence[Grid], sizes: Sequence[Size]) -> list[list[Grid]]:
    """The grids that have an area, by whether their cells are about as small as the smallest of their picture."""
    grids = [grid for grid in grids if min(_cell(grid, sizes)) > 0]
    smallest = {image: min(side(grid, sizes) for grid in grids if grid.image == image) for image in _images(grids)}
    fine = [grid for grid in grids if side(grid, sizes) < COARSER * smallest[grid.image]]
    coarse = [grid for grid in grids if grid not in fine]
    return [each for each in (fine, coarse) if each]


def _images(grids: Sequence[Grid]) -> set[int]:
    return {grid.image for grid in grids}


def _cell(grid: Grid, sizes: Sequence[Size]) -> tuple[float, float]:
    """Height and width of a cell in pixels."""
    left, top, right, bottom = grid.box or (0, 0, *sizes[grid.image])
    return (bottom - top) / grid.rows, (right - left) / grid.columns


def side(grid: Grid, sizes: Sequence[Size]) -> float:
    """Of a square as large as a cell, in pixels; 0 of one that has no area."""
    return math.sqrt(math.prod(max(0.0, each) for each in _cell(grid, sizes)))


def _random(draw: np.random.Generator, rows: int, columns: int) -> Signs:
    return np.where(draw.random((rows, columns)) < 0.5, np.int8(1), np.int8(-1))


def _count(grids: Sequence[Grid], sizes: Sequence[Size], image: int) -> tuple[int, int]:
    """Rows and columns of blocks over a picture."""
    width, height = sizes[image]
    cells = [_cell(grid, sizes) for grid in grids if grid.image == image] or [(height, width)]
    down, across = (BLOCK * min(sides) for sides in zip(*cells, strict=True))
    return max(2, min(height, round(height / down))), max(2, min(width, round(width / across)))


def expected(grid: Grid, sizes: Sequence[Size], signs: Sequence[Signs]) -> Floats:
    """[rows, columns] how much more white than black each cell sees of the images that the grid covers together."""
    return np.mean([shares(grid, sizes[image], signs[image]) for image in grid.images], axis=0)


def shares(grid: Grid, size: Size, signs: Signs) -> Floats:
    """[rows, columns] how much more white than black each cell sees, from -1 to 1; NaN where it sees no picture."""
    left, top, right, bottom = grid.box or (0, 0, *size)
    sums = np.zeros((size[1] + 1, size[0] + 1))
    sums[1:, 1:] = signs.cumsum(0, dtype=np.float64).cumsum(1)
    x = np.linspace(left, right, grid.columns + 1).clip(0, size[0])
    y = np.linspace(top, bottom, grid.rows + 1).clip(0, size[1])
    at = _between(_between(sums, y).T, x).T
    area = np.outer(np.diff(y), np.diff(x))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (at[1:, 1:] - at[:-1, 1:] - at[1:, :-1] + at[:-1, :-1]) / area


def _between(rows: Floats, at: Floats) -> Floats:
    """The rows at places between them."""
    below = np.minimum(at.astype(int), len(rows) - 2)
    share = (at - below)[:, None]
    return rows[below] * (1 - share) + rows[below + 1] * share


def agreement(should: Floats, differences: Tensor, white: Tensor) -> float:
    """The correlation of what cells should see with what they answered.

    Args:
        should: [K, n]; NaN is left out.
        differences: [K, n, d] of what each picture of blocks made and its inverse made.
        white: [n, d] the same of a white and a black picture.
    """
    along = torch.nn.functional.normalize(white.double(), dim=-1)
    answers = ((differences.double() * along).sum(-1) / white.double().norm(dim=-1).clamp(min=1e-30)).numpy()
    known = np.isfinite(should)
    if known.sum() < 2 or should[known].std() == 0 or answers[known].std() == 0:
        return 0.0
    return float(np.corrcoef(should[known], np.clip(answers[known], -1.5, 1.5))[0, 1])
