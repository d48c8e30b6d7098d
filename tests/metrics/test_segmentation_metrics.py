"""Scores of maps against a mask: worked out by hand, by a slow loop over pixels, and at their chance lines."""

import math

import numpy as np
import pytest

from dexar_fast.errors import InputError
from dexar_fast.metrics import chance, segmentation

MASK = np.zeros((4, 4), dtype=bool)
MASK[:2, :2] = True
TENFOLD = np.where(MASK, 1.0, 0.1)
SCORES = (segmentation.soft_iou, segmentation.energy_inside, segmentation.snr, segmentation.points_at)


def test_the_docstrings_numbers():
    assert segmentation.soft_iou(TENFOLD, MASK) == pytest.approx(4 / 5.2)
    assert segmentation.energy_inside(TENFOLD, MASK) == pytest.approx(4 / 5.2)
    assert segmentation.snr(TENFOLD, MASK) == pytest.approx(10.0)
    assert segmentation.points_at(TENFOLD, MASK) == 1.0
    assert segmentation.points_at(1 - TENFOLD, MASK) == 0.0


def test_a_uniform_map_scores_the_area_of_the_mask():
    uniform = chance.uniform(4, 4)
    assert [score(uniform, MASK) for score in SCORES] == pytest.approx([0.25, 0.25, 0.0, 0.25])


def test_a_loop_over_pixels_finds_the_same():
    rng = np.random.default_rng(0)
    for height, width in [(1, 7), (5, 3), (13, 11)]:
        a, mask = rng.random((height, width)), rng.random((height, width)) < 0.4
        mask.ravel()[:2] = True, False
        pixels = list(zip(a.ravel().tolist(), mask.ravel().tolist(), strict=True))
        both, energy, area = sum(v for v, m in pixels if m), sum(v for v, _ in pixels), sum(m for _, m in pixels)
        assert segmentation.soft_iou(a, mask) == pytest.approx(both / (energy + area - both), rel=1e-12)
        assert segmentation.energy_inside(a, mask) == pytest.approx(both / energy, rel=1e-12)
        ratio = (both / area) / ((energy - both) / (len(pixels) - area))
        assert segmentation.snr(a, mask) == pytest.approx(10 * math.log10(ratio), rel=1e-9)


def test_random_maps_reach_their_chance_lines():
    """Each pixel by itself, uniform in [0, 1): mean .5. s = .3."""
    rng = np.random.default_rng(1)
    mask = rng.random((300, 300)) < 0.3
    s, a = mask.mean(), rng.random((300, 300))
    assert segmentation.soft_iou(a, mask) == pytest.approx(0.5 * s / (0.5 + s - 0.5 * s), abs=0.01)
    assert segmentation.energy_inside(a, mask) == pytest.approx(s, abs=0.01)
    assert segmentation.snr(a, mask) == pytest.approx(0, abs=0.1)
    small = mask[:10, :10]
    hits = [segmentation.points_at(rng.random((10, 10)), small) for _ in range(2000)]
    assert np.mean(hits) == pytest.approx(small.mean(), abs=0.04)


def test_smooth_and_centred_maps_know_nothing_of_a_mask():
    """A random smooth map is on average at the uniform line; a centred one only where the mask lies no nearer."""
    rng, quarter = np.random.default_rng(2), np.zeros((31, 30), bool)
    quarter[:15, :15] = True
    found = [segmentation.energy_inside(chance.random_smooth(31, 30, rng), quarter) for _ in range(400)]
    assert np.mean(found) == pytest.approx(quarter.mean(), abs=0.02)
    left = np.zeros((31, 30), bool)
    left[:, :15] = True
    assert segmentation.energy_inside(chance.centred(31, 30), left) == pytest.approx(0.5)
    assert chance.centred(31, 30)[15, 15] > 0.99 > chance.centred(31, 30)[0, 0]


def test_snr_is_bounded_at_both_ends():
    assert segmentation.snr(MASK.astype(float), MASK) == pytest.approx(30.0)
    assert segmentation.snr((~MASK).astype(float), MASK) == pytest.approx(-30.0)


def test_ties_of_the_maximum():
    tied = np.zeros((4, 4))
    tied[[0, 1, 3], [0, 1, 3]] = 1
    assert segmentation.points_at(tied, MASK) == pytest.approx(2 / 3)
    assert segmentation.points_at_as_eagle(tied, MASK) is True
    assert segmentation.points_at_as_eagle(1 - TENFOLD, MASK) is False


def test_eagle_counts_a_constant_map_as_a_hit_and_nan_as_a_miss():
    assert segmentation.points_at_as_eagle(np.zeros((4, 4)), MASK)
    assert not segmentation.points_at_as_eagle(np.where(MASK, 1, np.nan), MASK)
    with pytest.raises(InputError, match="one shape"):
        segmentation.points_at_as_eagle(np.zeros((3, 3)), MASK)


def test_pixels_left_out_as_void():
    void = np.zeros((4, 4), bool)
    void[:, 3] = True
    assert segmentation.energy_inside(TENFOLD[~void], MASK[~void]) == pytest.approx(4 / 4.8)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    "a, mask, message",
    [
        (np.ones((3, 4)), MASK, "one shape"),
        (np.where(MASK, np.nan, 1), MASK, "NaN"),
        (np.where(MASK, np.inf, 1), MASK, "NaN or infinity"),
        (-TENFOLD, MASK, "from 0 on"),
        (np.zeros((4, 4)), MASK, "0 everywhere"),
        (TENFOLD, np.zeros((4, 4), bool), "no pixel"),
        (TENFOLD, MASK.astype(int), "truth values"),
        (np.zeros((0, 4)), MASK, "numbers"),
        (TENFOLD.astype(complex), MASK, "numbers"),
        ("a map", MASK, "numbers"),
        ([[1, 2], [3]], MASK, "no array"),
    ],
)
def test_what_is_refused(score, a, mask, message):
    with pytest.raises(InputError, match=message):
        score(a, mask)


def test_a_mask_of_the_whole_image_has_no_outside():
    with pytest.raises(InputError, match="no outside"):
        segmentation.snr(TENFOLD, np.ones((4, 4), bool))
