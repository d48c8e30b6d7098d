"""IoU over thresholds: by hand, against twenty comparisons a map, and at chance."""

import numpy as np
import pytest

from dexar_fast.errors import InputError
from dexar_fast.metrics import chance, maps, thresholds

MASK = np.zeros((4, 4), dtype=bool)
MASK[:2, :2] = True


def plain(a: np.ndarray, mask: np.ndarray) -> float:
    """Twenty comparisons and as many unions."""
    at_least = [np.float32(20) * a.astype(np.float32) >= k for k in range(1, 21)]
    return max(float((part & mask).sum() / (part | mask).sum()) for part in at_least)


def test_the_docstrings_number():
    a = np.where(MASK, 1.0, 0.0)
    a[2] = 0.6
    assert thresholds.best_iou(a, MASK) == 1.0
    a[0, 0] = 0.0
    assert thresholds.best_iou(a, MASK) == pytest.approx(3 / 4)


def test_single_thresholds_by_hand():
    """Values k/20 themselves reach threshold k; the first row alone is the mask."""
    a = np.repeat(np.arange(1, 21)[:, None] / 20, 3, axis=1)
    mask = np.zeros((20, 3), bool)
    mask[-4:] = True
    assert thresholds.best_iou(a, mask) == 1.0
    mask[-1] = False
    assert thresholds.best_iou(a, mask) == pytest.approx(3 / 4)


def test_many_maps_as_the_plain_loop_and_poisoned_neighbours():
    rng = np.random.default_rng(0)
    grids = rng.normal(size=(40, 5, 7)) * 10.0 ** rng.integers(-6, 6, (40, 1, 1))
    grids[3] = 2.5
    sizes = rng.integers(7, 40, (40, 2))
    masks = [maps.upsampled(rng.random((3, 3)), *size) > 0.5 for size in sizes]
    masks[3][:] = False
    masks[3][0, 0] = True
    found = thresholds.best_ious(grids, masks)
    expected = [plain(maps.prepared(grid, *mask.shape), mask) for grid, mask in zip(grids, masks, strict=True)]
    np.testing.assert_allclose(found, expected, atol=0.02)  # a pixel may sit at a threshold, up to rounding
    assert np.mean(np.abs(found - expected) < 1e-12) > 0.8
    assert found[3] == pytest.approx(1 / masks[3].size)


def test_one_map_is_exactly_the_plain_loop():
    rng = np.random.default_rng(1)
    for _ in range(50):
        a, mask = rng.random((9, 13)).round(2), rng.random((9, 13)) < 0.3
        mask[0, 0] = True
        assert thresholds.best_iou(a, mask) == plain(a, mask)


def test_chance():
    rng = np.random.default_rng(2)
    mask = rng.random((300, 300)) < 0.3
    s, q = mask.mean(), 0.95
    assert thresholds.best_iou(chance.uniform(300, 300), mask) == pytest.approx(s)
    assert thresholds.best_iou(rng.random((300, 300)), mask) == pytest.approx(q * s / (q + s - q * s), abs=0.01)


@pytest.mark.parametrize(
    "grids, masks, message",
    [
        (np.ones((2, 3, 3)), [MASK], "one each"),
        (np.ones((3, 3)), [MASK] * 3, "3 axes"),
        (np.full((1, 3, 3), np.nan), [MASK], "NaN"),
        (np.ones((1, 3, 3)), [~MASK & MASK], "with a pixel"),
        (np.ones((1, 3, 3)), [MASK.ravel()], "height, width"),
        (np.ones((1, 3, 3)), [MASK * 255], "truth values"),
    ],
)
def test_what_is_refused_of_many(grids, masks, message):
    with pytest.raises(InputError, match=message):
        thresholds.best_ious(grids, masks)


def test_a_map_above_1_is_refused():
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        thresholds.best_iou(np.full((4, 4), 2.0), MASK)
