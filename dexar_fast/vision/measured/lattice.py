"""From the places of visual tokens one by one to grids: rows of tokens from left to right, one below another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dexar_fast.vision.grid import Grid, Size
from dexar_fast.vision.measured.decoding import Floats

SAME = 0.75  # of a cell: how far apart what counts as one column or row may lie
EDGE = 0.4  # of a cell: a grid that ends so near an edge of its picture ends there
FAR = 2.5  # cells: neighbours lie nearer
NEAR, FEW_ROWS = 6, 24  # tokens to either side by which width and height of a cell are told


@dataclass(frozen=True)
class Places:
    """Where each visual token lies: centres and widths [N] in pixels of its picture; the picture, -1 for no place."""

    image: NDArray[np.int64]
    x: Floats
    y: Floats
    width: Floats
    height: Floats


@dataclass(frozen=True)
class _Row:
    start: int
    length: int


def grids(places: Places) -> list[Grid]:
    """The grids that all tokens with a place make up, in the order of the sequence."""
    places = replace(places, width=_pitch(places), height=_near(places.height, FEW_ROWS, 75))
    blocks: list[list[_Row]] = []
    for row in _rows(places):
        if blocks and _goes_on(places, blocks[-1], row):
            blocks[-1].append(row)
        else:
            blocks.append([row])
    return [_grid(places, block) for block in blocks]


def _pitch(places: Places) -> Floats:
    """[N] how far neighbours lie apart, which is the width of a cell unless each is a row of its own."""
    steps = np.abs(np.diff(places.x, prepend=places.x[:1]))
    return np.maximum(_near(steps, NEAR, 50), _near(places.width, NEAR, 50) / 2)


def _near(values: Floats, reach: int, percent: float) -> Floats:
    """[N] the percentile of each value and its neighbours."""
    windows = sliding_window_view(np.pad(values, reach, mode="edge"), 2 * reach + 1)
    return np.percentile(windows, percent, axis=1)


def _rows(places: Places) -> list[_Row]:
    """Runs of neighbours of one picture that do not go back to the left, nor up or down."""
    found: list[_Row] = []
    for token in np.flatnonzero(places.image >= 0).tolist():
        last = found[-1] if found else None
        if last is not None and token == last.start + last.length and _beside(places, token):
            found[-1] = _Row(last.start, last.length + 1)
        else:
            found.append(_Row(token, 1))
    return found


def _beside(places: Places, token: int) -> bool:
    """Whether a token lies in one row with the one before it."""
    right, down = places.x[token] - places.x[token - 1], abs(places.y[token] - places.y[token - 1])
    near = -SAME * places.width[token] < right < FAR * places.width[token] and down < SAME * places.height[token]
    return bool(near and places.image[token] == places.image[token - 1])


def _goes_on(places: Places, block: list[_Row], row: _Row) -> bool:
    """Whether a row lies below the last of a block, column below column."""
    last = block[-1]
    if row.length != last.length or places.image[row.start] != places.image[last.start]:
        return False
    if len(block) > 1 and row.start - last.start != last.start - block[-2].start:
        return False
    above, below = (slice(each.start, each.start + each.length) for each in (last, row))
    down = float(np.median(places.y[below] - places.y[above]))
    apart = float(np.median(np.abs(places.x[below] - places.x[above])))
    high, wide = float(np.median(places.height[below])), float(np.median(places.width[below]))
    return 0 < down < FAR * high and apart < SAME * wide


def _grid(places: Places, block: list[_Row]) -> Grid:
    first, count, columns = block[0], len(block), block[0].length
    stride = block[1].start - first.start if count > 1 else columns
    cells = first.start + np.arange(count)[:, None] * stride + np.arange(columns)
    left, right = _ends(places.x[cells].mean(0), float(np.median(places.width[cells])))
    top, bottom = _ends(places.y[cells].mean(1), float(np.median(places.height[cells])))
    box = (left, top, right, bottom)
    image = int(places.image[first.start])
    return Grid(image, first.start, count, columns, box, None if stride == columns else stride)


def _ends(centres: Floats, width: float) -> tuple[float, float]:
    """Where evenly spaced cells of these centres begin and end; `width` is that of a single one."""
    if len(centres) > 1:
        width, middle = np.polyfit(np.arange(len(centres)) - (len(centres) - 1) / 2, centres, 1).tolist()
    else:
        middle = float(centres[0])
    half = len(centres) * width / 2
    return middle - half, middle + half


def snapped(grid: Grid, size: Size) -> Grid:
    """The grid with the ends of its box at the edges of its picture where it as good as ends there."""
    left, top, right, bottom = grid.box or (0, 0, *size)
    x, y = EDGE * (right - left) / grid.columns, EDGE * (bottom - top) / grid.rows
    width, height = size
    box = (_at(left, 0, x), _at(top, 0, y), _at(right, width, x), _at(bottom, height, y))
    return replace(grid, box=None if box == (0, 0, *size) else box)


def _at(end: float, edge: int, near: float) -> float:
    return edge if abs(end - edge) <= near else end
