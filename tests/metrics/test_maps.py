"""Grids prepared as maps: normalised, upsampled against a slow loop, blank ones made uniform."""

import numpy as np
import pytest

from dexar_fast.errors import InputError
from dexar_fast.metrics import maps


def slow(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel from the four cells around it, their centres at (i + .5) / cells."""
    rows, columns = grid.shape
    found = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) / height * rows - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) / width * columns - 0.5, 0), columns - 1)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = grid[top, left] * (1 - (u - left)) + grid[top, right] * (u - left)
            lower = grid[bottom, left] * (1 - (u - left)) + grid[bottom, right] * (u - left)
            found[y, x] = upper * (1 - (v - top)) + lower * (v - top)
    return found


@pytest.mark.parametrize("cells, pixels", [((1, 1), (3, 5)), ((2, 3), (7, 9)), ((5, 4), (5, 4)), ((3, 2), (31, 17))])
def test_upsampling_is_linear_between_the_centres(cells, pixels):
    grid = np.random.default_rng(0).random(cells)
    np.testing.assert_allclose(maps.upsampled(grid, *pixels), slow(grid, *pixels), atol=1e-12)


def test_a_blank_map_becomes_a_uniform_one():
    blank = np.full((3, 3), 0.7)
    assert maps.is_blank(blank)
    assert np.array_equal(maps.prepared(blank, 6, 6), np.ones((6, 6)))
    assert np.array_equal(maps.prepared(np.zeros((3, 3)), 6, 6), np.ones((6, 6)))


def test_prepared_normalises_on_the_grid_and_keeps_the_place():
    grid = np.full((4, 4), 2.0)
    grid[0, 3] = 5.0
    a = maps.prepared(grid, 16, 16)
    assert a.shape == (16, 16)
    assert a.min() == pytest.approx(0.0) and a.max() == pytest.approx(1.0)
    row, column = np.unravel_index(a.argmax(), a.shape)
    assert row < 4 and column >= 12


@pytest.mark.parametrize("grid", [np.ones(3), np.ones((0, 3)), np.full((2, 2), np.nan), "grid", np.ones((2, 2, 2))])
def test_what_is_no_grid(grid):
    with pytest.raises(InputError):
        maps.prepared(grid, 4, 4)
