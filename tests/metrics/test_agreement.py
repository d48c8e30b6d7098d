"""How alike maps are: by hand, by slow definitions, at chance, without the library."""

import sys
from itertools import permutations

import numpy as np
import pytest

from dexar_fast.errors import InputError, LibraryError
from dexar_fast.metrics import agreement


def test_the_docstrings_numbers():
    assert agreement.rank_correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    one, other = np.zeros(10), np.zeros(10)
    one[[0, 1]], other[[1, 2]] = (9, 8), (9, 8)
    assert agreement.top_share(one, other, 0.2) == pytest.approx(0.5)


def test_correlation_of_mean_ranks_by_definition():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 6, (5, 7)), rng.integers(0, 6, (5, 7))

    def ranks(values: np.ndarray) -> np.ndarray:
        flat = values.ravel()
        return np.array([(flat < v).sum() + ((flat == v).sum() + 1) / 2 for v in flat])

    expected = np.corrcoef(ranks(one), ranks(other))[0, 1]
    assert agreement.rank_correlation(one, other) == pytest.approx(expected)
    assert agreement.rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert agreement.rank_correlation(one, -one) == pytest.approx(-1)


def test_ties_in_the_top_count_as_all_ways_of_breaking_them():
    one, other = np.array([2, 1, 1, 1, 0]), np.array([0, 3, 3, 3, 3])
    k = 2
    pairs = [
        len(
            {*sorted(range(5), key=lambda i: (-one[i], p[i]))[:k]}
            & {*sorted(range(5), key=lambda i: (-other[i], q[i]))[:k]}
        )
        for p in permutations(range(5))
        for q in list(permutations(range(5)))[::7]
    ]
    assert agreement.top_share(one, other, 0.4) == pytest.approx(np.mean(pairs) / k, abs=0.02)


def test_chance():
    rng = np.random.default_rng(1)
    one = rng.random((24, 24))
    others = rng.random((200, 24, 24))
    correlations = agreement.rank_correlations(one, others)
    assert correlations.mean() == pytest.approx(0, abs=0.01)
    assert correlations.std() == pytest.approx(1 / np.sqrt(24 * 24 - 1), rel=0.2)
    assert np.mean([agreement.top_share(one, other) for other in others]) == pytest.approx(0.1, abs=0.01)
    assert agreement.top_share(one, np.zeros((24, 24))) == pytest.approx(58 / 576)
    assert agreement.rank_correlation(one, np.zeros((24, 24))) == 0


@pytest.mark.parametrize("one, other", [([1, 2], [1, 2, 3]), ([1], [1]), ([1, np.nan], [1, 2]), ([], [])])
def test_maps_that_do_not_compare(one, other):
    for score in (agreement.rank_correlation, agreement.top_share):
        with pytest.raises(InputError):
            score(one, other)


def test_shares_and_lists_that_are_none():
    with pytest.raises(InputError, match="above 0"):
        agreement.top_share([1, 2], [1, 2], 0.0)
    with pytest.raises(InputError, match="no other map"):
        agreement.rank_correlations([1, 2], [])


def test_without_scipy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(LibraryError, match=r"dexar-fast\[metrics\]"):
        agreement.rank_correlation([1, 2], [2, 1])
