"""Minimal regions and their means, against the loop of EAGLE's script and against numbers worked out by hand."""

import math

import numpy as np
import pytest

from dexar_fast.errors import InputError
from dexar_fast.metrics.hiding import correction

SAMPLES = [0.05, 0.1, 0.4, 1.0]


def scripted(right: list[bool], areas: list[float]) -> float:
    """The smallest j from 1 on for which the answer before the last j - 1 is right."""
    for j in range(1, len(right) + 1):
        if right[-j]:
            return 0.0 if j == 1 else 1 - areas[-j]
    return 1.0


def test_it_is_what_the_script_finds():
    rng = np.random.default_rng(0)
    for _ in range(500):
        count = int(rng.integers(1, 9))
        areas = rng.random(count).cumsum()
        areas = (areas / areas[-1]).tolist()
        right = (rng.random(count) < rng.choice([0.1, 0.5])).tolist()
        assert correction.minimal_region(right, areas) == pytest.approx(scripted(right, areas), abs=1e-12)


def test_an_answer_that_is_right_in_between_counts_from_the_last():
    assert correction.minimal_region([True, True, False], [0.2, 0.5, 1.0]) == 0.5
    assert correction.minimal_region([True, False, False], [0.2, 0.5, 1.0]) == 0.8
    assert correction.minimal_region([True, False, True], [0.2, 0.5, 1.0]) == 0.0
    assert correction.minimal_region([False] * 3, [0.2, 0.5, 1.0]) == 1.0


def test_the_docstrings_numbers():
    assert correction.amcr(SAMPLES) == pytest.approx(0.3875)
    assert correction.csr(SAMPLES) == 0.5
    assert correction.csr_of_corrected(SAMPLES) == pytest.approx(2 / 3)
    assert correction.csr(SAMPLES, 0.4) == 0.75


def test_without_samples_there_is_no_mean():
    assert all(map(math.isnan, (correction.amcr([]), correction.csr([]), correction.csr_of_corrected([1.0, 1.0]))))
    assert correction.csr([1.0, 1.0]) == 0


def test_their_reading_is_never_below_that_over_all():
    rng = np.random.default_rng(1)
    for _ in range(100):
        regions = [*rng.choice([0.0, 0.05, 0.1, 0.3, 1.0], size=7).tolist(), 0.2]
        assert correction.csr_of_corrected(regions) >= correction.csr(regions)


def test_random_orders_are_the_chance_line():
    """One region of 8 causes the error: it stands at any place alike, so that k = 1..8 last regions must go."""
    rng = np.random.default_rng(2)
    areas = [(k + 1) / 8 for k in range(8)]
    places = rng.integers(8, size=4000)
    regions = [correction.minimal_region([k < place for k in range(8)], areas) for place in places]
    assert correction.amcr(regions) == pytest.approx(np.mean([1 - k / 8 for k in range(8)]), abs=0.02)
    assert correction.csr(regions, 0.25) == pytest.approx(2 / 8, abs=0.02)


@pytest.mark.parametrize("regions", [[0.1, math.nan], [-0.1], [1.5], [[0.1]]])
def test_what_are_no_shares(regions):
    for mean in (correction.amcr, correction.csr):
        with pytest.raises(InputError):
            mean(regions)


@pytest.mark.parametrize("right, areas", [([], []), ([True], [0.5, 1.0])])
def test_lists_that_do_not_fit(right, areas):
    with pytest.raises(InputError, match="one each is due"):
        correction.minimal_region(right, areas)
