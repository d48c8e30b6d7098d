"""Intervals and paired differences: numbers worked out by hand, every resample of small sets, and coverage."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from dexar_fast import InputError
from dexar_fast.metrics.intervals import difference, estimate, mean


def ratio(means: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return means[..., 0] / means[..., 1]


def test_two_items_have_three_means() -> None:
    assert estimate([[0], [1]]) == (0.5, 0, 1)
    assert estimate([[3.0]]) == (3, 3, 3)


def test_the_interval_is_that_of_every_resample() -> None:
    """Of 4 items there are 256 resamples: the middle 95 % of their means, counted one by one."""
    values = np.array([0.1, 0.4, 0.7, 1.5])
    means = sorted(np.mean(drawn) for drawn in product(values, repeat=4))
    found = estimate(values[:, None], draws=20_000)
    assert found.value == pytest.approx(0.675)
    assert found.low == pytest.approx(means[int(0.025 * 256)], abs=0.05)
    assert found.high == pytest.approx(means[int(0.975 * 256)], abs=0.05)


def test_a_ratio_is_of_the_means_not_the_mean_of_ratios() -> None:
    found = estimate([[1, 2], [9, 2]], ratio)
    assert found.value == 2.5 and found.low == pytest.approx(0.5) and found.high == pytest.approx(4.5)


def test_infinity_does_no_harm() -> None:
    found = estimate([[1, 0], [1, 1]], ratio)
    assert found.value == 2 and found.high == np.inf and found.low == 1


def test_infinite_figures_that_are_equal_do_not_differ() -> None:
    infinite, finite = [[1.0, 0], [2, 0]], [[1.0, 1], [2, 1]]
    assert difference(infinite, infinite, ratio) == (0, 0, 0, 1)
    assert difference(infinite, finite, ratio)[:3] == (np.inf, np.inf, np.inf)


def test_every_pattern_of_signs_of_three_pairs() -> None:
    found = difference([[1], [2], [3]], [[0], [0], [0]])
    assert found.value == 2 and found.p == 2 / 8
    assert difference([[1], [2], [-3]], [[0], [0], [0]]).p == 1


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 0.1, 1.0, 1e3, 1e6, 1e12])
@pytest.mark.parametrize("items", [1, 2, 3, 6])
def test_ties_count_whatever_the_scale(items: int, scale: float) -> None:
    """Whole numbers, so that ties are many and exact, in a unit that is not: every pattern of signs, one by one."""
    rng = np.random.default_rng(items)
    for _ in range(20):
        one, other = rng.integers(-3, 4, (2, items))
        sums = [abs(sum(signs * (one - other))) for signs in product([1, -1], repeat=items)]
        found = difference(one[:, None] * scale, other[:, None] * scale)
        assert found.p == np.mean([each >= abs(sum(one - other)) for each in sums])


def test_intervals_and_p_are_those_of_scipy() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.normal(0.4, 1, (30, 1)), rng.normal(0, 1, (30, 1))
    found, how = difference(one, other, draws=9999), {"n_resamples": 9999, "rng": np.random.default_rng(4)}
    gap = ((one - other)[:, 0],)
    interval = stats.bootstrap(gap, np.mean, method="percentile", **how).confidence_interval
    assert found[1:3] == pytest.approx(interval, abs=0.03)
    expected = stats.permutation_test(gap, np.mean, permutation_type="samples", **how).pvalue
    assert found.p == pytest.approx(expected, abs=0.015)
    parts = rng.random((25, 2)) + 0.1
    own = stats.bootstrap(
        tuple(parts.T), lambda a, b: a.mean() / b.mean(), paired=True, vectorized=False, method="percentile", **how
    ).confidence_interval
    assert estimate(parts, ratio, draws=9999)[1:] == pytest.approx(own, abs=0.03)


def test_a_figure_of_several_parts_changes_places_as_a_whole() -> None:
    one, other = np.array([[4.0, 1], [6, 3]]), np.array([[1.0, 2], [3, 1]])
    found = difference(one, other, ratio)
    patterns = [np.array(pattern)[:, None] for pattern in product([False, True], repeat=2)]
    swapped = [(np.where(s, other, one).mean(0), np.where(s, one, other).mean(0)) for s in patterns]
    differences = [ratio(a) - ratio(b) for a, b in swapped]
    assert found.value == pytest.approx(10 / 4 - 4 / 3)
    assert found.p == np.mean(np.abs(differences) >= abs(differences[0]) - 1e-9)


def test_more_pairs_are_drawn_and_none_has_chance_zero() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(1, 0.1, (40, 1))
    found = difference(one, one - 1)
    assert found.p == 1 / 2001 and found.low <= 1 <= found.high
    assert difference(one, one).p == 1


def test_one_interval_in_twenty_misses_and_p_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(1)
    covered, low = 0, 0
    for _ in range(300):
        one, other = rng.normal(0, 1, (2, 30, 1))
        found = estimate(one, draws=300)
        covered += found.low <= 0 <= found.high
        low += difference(one, other, draws=200).p <= 0.2
    assert 0.88 <= covered / 300 <= 0.98 and 0.13 <= low / 300 <= 0.27


def test_items_of_one_group_are_drawn_and_change_places_together() -> None:
    """Each of four groups written three times: as sure as four items are, not as twelve."""
    one, other = np.random.default_rng(5).random((2, 4, 2)) + 0.1
    groups = [*range(4)] * 3
    for combine in (mean, ratio):
        three = difference(np.tile(one, (3, 1)), np.tile(other, (3, 1)), combine, groups=groups)
        assert three == pytest.approx(difference(one, other, combine))
        assert estimate(np.tile(one, (3, 1)), combine, groups=groups) == pytest.approx(estimate(one, combine))
    with pytest.raises(InputError, match="3 groups of 4 items"):
        estimate(one, groups=[1, 2, 3])


def test_groups_of_several_sizes_by_every_resample() -> None:
    """Items [0], [0] of one picture and [6] of another: means 0, 2 and 6 with chances 1/4, 1/2 and 1/4."""
    assert estimate([[0], [0], [6]], groups="aab") == (2, 0, 6)
    assert difference([[1], [1], [6]], [[0], [0], [0]], groups="aab").p == 2 / 4


def test_intervals_of_correlated_items_hold_what_they_promise() -> None:
    """Five questions about each picture that are all alike: without groups half of the intervals miss."""
    rng, covered = np.random.default_rng(6), np.zeros(2)
    for _ in range(200):
        items = rng.normal(0, 1, (20, 1)).repeat(5, 0)
        for place, groups in enumerate((None, [*np.arange(20).repeat(5)])):
            found = estimate(items, groups=groups, draws=300)
            covered[place] += found.low <= 0 <= found.high
    assert covered[0] / 200 < 0.75 and covered[1] / 200 > 0.87


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).random((20, 1))
    assert estimate(values, mean, seed=1) == estimate(values, mean, seed=1) != estimate(values, mean, seed=2)


@pytest.mark.parametrize("parts", [[], [1.0], [[np.nan]], [["a"]]])
def test_what_is_refused(parts: list[object]) -> None:
    with pytest.raises(InputError, match="parts"):
        estimate(parts)
    with pytest.raises(InputError, match="parts"):
        difference([[1.0]], [[1.0], [2.0]])
