"""Segmentation metrics on maps whose scores are known by hand."""

import numpy as np
import pytest

from dexar_fast.metrics import segmentation as metrics

MASK = np.zeros((4, 4), dtype=bool)
MASK[:2, :2] = True


def test_a_uniform_map_scores_the_area_of_the_mask():
    uniform = np.ones((4, 4))
    assert metrics.energy_inside(uniform, MASK) == pytest.approx(0.25)
    assert metrics.points_at(uniform, MASK) == pytest.approx(0.25)
    assert metrics.snr(uniform, MASK) == pytest.approx(0.0)


def test_energy_snr_and_pointing_by_hand():
    a = np.where(MASK, 1.0, 0.1)
    assert metrics.energy_inside(a, MASK) == pytest.approx(4 / 5.2)
    assert metrics.snr(a, MASK) == pytest.approx(10.0)
    assert metrics.points_at(a, MASK) == 1.0
    assert metrics.points_at(1 - a, MASK) == 0.0


def test_snr_is_bounded_at_both_ends():
    assert metrics.snr(MASK.astype(float), MASK) == pytest.approx(30.0)
    assert metrics.snr((~MASK).astype(float), MASK) == pytest.approx(-30.0)


def test_a_blank_map_becomes_a_uniform_one():
    blank = np.full((3, 3), 0.7)
    assert metrics.is_blank(blank)
    assert np.array_equal(metrics.prepared(blank, 6, 6), np.ones((6, 6)))


def test_prepared_normalises_on_the_grid_and_keeps_the_place():
    grid = np.full((4, 4), 2.0)
    grid[0, 3] = 5.0
    a = metrics.prepared(grid, 16, 16)
    assert a.shape == (16, 16)
    assert a.min() == pytest.approx(0.0) and a.max() == pytest.approx(1.0)
    row, column = np.unravel_index(a.argmax(), a.shape)
    assert row < 4 and column >= 12
