"""From the places of visual tokens one by one to grids: rows of tokens from left to right, one below another.

A single token may be found anywhere: what makes a row or a column is what most of its tokens say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dexar_fast.vision.grid import Grid, Size
from dexar_fast.vision.measured.decoding import Floats

SAME = 0.75  # of a cell: how far apart what counts as one column or row may lie
EDGE = 0.4  # of a cell: a grid that ends so near an edge of its picture ends there
FAR = 2.5  # cells: neighbours in a row lie nearer
DEEP = 6.0  # heights, which are told too small where features bend: neighbouring rows lie nearer
NEAR, FEW_ROWS = 6, 24  # tokens to either side by which width and height of a cell are told
BEHIND = 2  # times as large a grid from the next token on: this one is none of it
LONGEST = 1024  # tokens of a row


@dataclass(frozen=True)
class Places:
    """Where each visual token lies: centres and widths [N] in pixels of its picture; the picture, -1 for no place.

    `frames` counts the pictures from this one that it stands for.
    """

    image: NDArray[np.int64]
    frames: NDArray[np.int64]
    x: Floats
    y: Floats
    width: Floats
    height: Floats


def grids(places: Places) -> list[Grid]:
    """The grids that tokens with a place make up, in the order of the sequence.

    Tokens that stand in no row or column with others, several of one picture, are left out: where each sees all of it,
    they have no place.
    """
    found = [*_all_grids(places)]
    alone = Counter(grid.image for grid in found if grid.cells.size == 1)
    return [grid for grid in found if grid.cells.size > 1 or alone[grid.image] == 1]


def _all_grids(places: Places) -> Iterator[Grid]:
    places = replace(places, width=_pitch(places), height=_near(places.height, FEW_ROWS, 75))
    start, count = 0, len(places.x)
    while start < count:
        if places.image[start] < 0:
            start += 1
            continue
        cells = _largest(places, start)
        if (
            start + 1 < count
            and places.image[start + 1] >= 0
            and _largest(places, start + 1).size > BEHIND * cells.size
        ):
            start += 1  # it sees all of the picture, say, and stands before those that see its parts (Florence-2)
            continue
        yield _grid(places, cells)
        start = int(cells[-1, -1]) + 1


def _largest(places: Places, start: int) -> NDArray[np.int64]:
    """The cells [rows, columns] of the most tokens from `start` that make a grid."""
    longest = min(LONGEST, (len(places.x) - start) // 2)
    blocks = (_block(places, start, stride) for stride in range(1, longest + 1) if _below(places, start, stride))
    return max([*blocks, _row(places, start)], key=lambda found: found.size)


def _pitch(places: Places) -> Floats:
    """[N] how far neighbours lie apart, which is the width of a cell unless each is a row of its own."""
    steps = np.abs(np.diff(places.x, prepend=places.x[:1]))
    return np.maximum(_near(steps, NEAR, 50), _near(places.width, NEAR, 50) / 2)


def _near(values: Floats, reach: int, percent: float) -> Floats:
    """[N] the percentile of each value and its neighbours."""
    windows = sliding_window_view(np.pad(values, reach, mode="edge"), 2 * reach + 1)
    return np.percentile(windows, percent, axis=1)


def _block(places: Places, start: int, stride: int) -> NDArray[np.int64]:
    """The cells [rows, columns] of rows that begin `stride` tokens after each other and lie below each other."""
    rows = 2
    while start + (rows + 1) * stride <= len(places.x) and _below(places, start + (rows - 1) * stride, stride):
        rows += 1
    cells = start + np.arange(rows)[:, None] * stride + np.arange(stride)
    x = np.median(places.x[cells], axis=0)
    rises = np.concatenate([[True], np.diff(x) > 0]) & (np.median(places.image[cells], axis=0) >= 0)
    return cells[:, : stride if rises.all() else int(rises.argmin())]


def _below(places: Places, start: int, stride: int) -> bool:
    """Whether most of the next `stride` tokens lie below those from `start`, in the same columns of one picture."""
    above, below = slice(start, start + stride), slice(start + stride, start + 2 * stride)
    down = float(np.median(places.y[below] - places.y[above]))
    apart = float(np.median(np.abs(places.x[below] - places.x[above]) / places.width[above]))
    level = float(np.median(np.abs(places.y[above] - np.median(places.y[above]))))
    high = float(np.median(places.height[above]))
    same = np.mean(places.image[above] == places.image[below])
    return 0 < down < DEEP * high and apart < SAME and level < high and same > SAME


def _row(places: Places, start: int) -> NDArray[np.int64]:
    """The cells [1, columns] of the tokens that lie to the right of each other."""
    end = start + 1
    while end < len(places.x) and _beside(places, end):
        end += 1
    return np.arange(start, end)[None]


def _beside(places: Places, token: int) -> bool:
    """Whether a token lies in one row with the one before it."""
    right, down = places.x[token] - places.x[token - 1], abs(places.y[token] - places.y[token - 1])
    near = 0 < right < FAR * places.width[token] and down < SAME * places.height[token]
    return bool(near and places.image[token] == places.image[token - 1])


def _grid(places: Places, cells: NDArray[np.int64]) -> Grid:
    rows, columns = cells.shape
    left, right = _ends(np.median(places.x[cells], axis=0), float(np.median(places.width[cells])))
    top, bottom = _ends(np.median(places.y[cells], axis=1), float(np.median(places.height[cells])))
    start, stride = int(cells[0, 0]), int(cells[1, 0] - cells[0, 0]) if rows > 1 else columns
    image = int(np.median(places.image[cells]))
    box = (left, top, right, bottom)
    frames = int(np.median(places.frames[cells]))
    return Grid(image, start, rows, columns, box, None if stride == columns else stride, frames)


def _ends(centres: Floats, width: float) -> tuple[float, float]:
    """Where evenly spaced cells of these centres begin and end; `width` is that of a single one."""
    middle = float(centres.mean())
    if len(centres) > 1:
        width = float(np.polyfit(np.arange(len(centres)), centres, 1)[0])
    return middle - len(centres) * width / 2, middle + len(centres) * width / 2


def snapped(grid: Grid, size: Size) -> Grid:
    """The grid with the ends of its box at the edges of its picture where it as good as ends there."""
    left, top, right, bottom = grid.box or (0, 0, *size)
    x, y = EDGE * (right - left) / grid.columns, EDGE * (bottom - top) / grid.rows
    width, height = size
    box = (_at(left, 0, x), _at(top, 0, y), _at(right, width, x), _at(bottom, height, y))
    return replace(grid, box=None if box == (0, 0, *size) else box)


def _at(end: float, edge: int, near: float) -> float:
    return edge if abs(end - edge) <= near else end
