"""Maps of one kind of cells read at the places of others, so that maps of several methods compare cell by cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dexar_fast.vision.grid import Box, Grid, Size
from dexar_fast.vision.regions import Cells, Regions

NOWHERE = -1

Parts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def parts(targets: Sequence[Cells], sources: Sequence[Cells], sizes: Sequence[Size]) -> Parts:
    """What of the sources' maps lies in each value of the targets': a region has many cells, another value in each.

    Args:
        sizes: (width, height) of each picture.
    Returns:
        target, source and share, [K] each: of the target's cells that see the sources, those that see this one. The
        shares of a target add up to 1; one that sees none is left out.
    """
    starts = np.cumsum([0] + [each.rows * each.columns for each in targets])
    drawn = [_drawn(each, int(start), sizes) for each, start in zip(targets, starts, strict=False)]
    seen = places(drawn, int(starts[-1]), sources, sizes)
    owners = np.concatenate([each.cells.ravel() for each in targets])
    across = seen.max(initial=0) + 1
    pairs, counts = np.unique((owners * across + seen)[seen != NOWHERE], return_counts=True)
    target, source = np.divmod(pairs, across)
    return target, source, counts / np.bincount(target, counts)[target]


def _drawn(cells: Cells, start: int, sizes: Sequence[Size]) -> Grid:
    """The same cells as a grid with a value for each, from `start` on."""
    box = _sampled(cells, sizes[cells.image]) if isinstance(cells, Regions) else cells.box
    return Grid(cells.image, start, cells.rows, cells.columns, box)


def _sampled(regions: Regions, size: Size) -> Box:
    """The box around the regions' cells that has the labels they are read from at their centres."""
    rows, columns = regions.labels.shape
    across, down = size[0] / columns, size[1] / rows
    first = regions.step // 2 + 0.5 - regions.step / 2
    right, bottom = (first + count * regions.step for count in (regions.columns, regions.rows))
    return first * across, first * down, right * across, bottom * down


def places(targets: Sequence[Cells], count: int, sources: Sequence[Cells], sizes: Sequence[Size]) -> NDArray[np.int64]:
    """[count] for each value of the targets' maps the source's value at the centre of its cell, -1 where there is none.

    Where several source grids lie there (tiles and a thumbnail), it is the one with the smallest cells.

    Args:
        sizes: (width, height) of each picture.
    """
    found = np.full(count, NOWHERE)
    for target in targets:
        size = sizes[target.image]
        x, y = _centres(target, size)
        for source in sorted(sources, key=lambda each: -_cell(each, size)):
            if target.image in source.images:
                values = _read(source, x, y, size)
                cells = target.cells[values != NOWHERE]
                found[cells] = values[values != NOWHERE]
    return found


def _box(cells: Cells, size: Size) -> Box:
    return cells.box or (0.0, 0.0, float(size[0]), float(size[1]))


def _cell(cells: Cells, size: Size) -> float:
    """The area of a cell in pixels."""
    left, top, right, bottom = _box(cells, size)
    return (right - left) * (bottom - top) / (cells.rows * cells.columns)


def _centres(cells: Cells, size: Size) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y [rows, columns] of the cells' centres, in pixels of the picture."""
    left, top, right, bottom = _box(cells, size)
    x = left + (np.arange(cells.columns) + 0.5) / cells.columns * (right - left)
    y = top + (np.arange(cells.rows) + 0.5) / cells.rows * (bottom - top)
    across, down = np.meshgrid(x, y)
    return across, down


def _read(source: Cells, x: NDArray[np.float64], y: NDArray[np.float64], size: Size) -> NDArray[np.int64]:
    """The source's value at each place, -1 outside its box."""
    left, top, right, bottom = _box(source, size)
    table = source.start + source.labels.astype(np.int64) if isinstance(source, Regions) else source.cells
    rows, columns = table.shape
    row = np.floor((y - top) / (bottom - top) * rows).astype(int)
    column = np.floor((x - left) / (right - left) * columns).astype(int)
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    return np.where(inside, table[row.clip(0, rows - 1), column.clip(0, columns - 1)], NOWHERE)


def finest(of_each: Sequence[Sequence[Cells]]) -> int:
    """Which of several kinds of cells is a grid, the one of most cells; of regions alone it is the one of most regions.

    Which one it is of regions does not depend on their order.
    """
    grids = [i for i, cells in enumerate(of_each) if cells and all(isinstance(each, Grid) for each in cells)]
    if not grids:
        return max(range(len(of_each)), key=lambda i: _regions(of_each[i]))
    return max(grids, key=lambda i: sum(each.rows * each.columns for each in of_each[i]))


def _regions(cells: Sequence[Cells]) -> tuple[int, list[bytes]]:
    """How many values they have, and what tells those of equally many apart."""
    return max((int(each.cells.max()) for each in cells), default=-1), [each.cells.tobytes() for each in cells]
