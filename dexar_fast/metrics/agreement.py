"""How alike two maps are: for agreement with occlusion, sanity checks and stability. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import InputError, LibraryError, reason
from dexar_fast.metrics.maps import finite


def rank_correlation(one: Any, other: Any) -> float:
    """Spearman's: Pearson's correlation of the ranks, equal values sharing their mean rank (scipy). 0 for a blank map.

    [1, 2, 3] and [1, 3, 2]: 1 - 6 * 2 / (3 * 8) = .5. Chance: 0, with a standard deviation of 1 / sqrt(n - 1) over n
    cells that know nothing of each other, and more for smooth maps.

    Raises:
        InputError: maps of different shapes, of one cell, or with NaN. LibraryError: scipy is missing.
    """
    first, second = _pair(one, other)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(library("scipy.stats").spearmanr(first, second).statistic)


def rank_correlations(one: Any, others: Sequence[Any]) -> NDArray[np.float64]:
    """[K], `rank_correlation` of a map with each of K others.

    Sanity: with those of ever more random weights, it should fall to 0, and with maps of other images be near 0.
    Stability: with those of pictures under small noise, it should stay near 1. A method that always gives one map is
    as stable as can be: read the two together.
    """
    if len(others) == 0:
        raise InputError("there is no other map to compare with")
    return np.array([rank_correlation(one, other) for other in others])


def top_share(one: Any, other: Any, share: float = 0.1) -> float:
    """The share of the k greatest cells that two maps have in common, k = ceil(share * n), in [0, 1].

    Ten cells, share .2: k = 2. Greatest at {0, 1} and at {1, 2}: 1 / 2. Ties at the k-th place count by the part of
    them that has room. Chance: k / n, which a blank map gets beside any other.

    Raises:
        InputError: as `rank_correlation`, or a share that is not above 0 and at most 1.
    """
    first, second = _pair(one, other)
    if not 0 < share <= 1:
        raise InputError(f"share {share!r} must be above 0 and at most 1")
    k = ceil(share * len(first))
    return float(_among_top(first, k) @ _among_top(second, k) / k)


def _among_top(values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """[n], how likely each cell is among the k greatest if ties are broken at random; sums to k."""
    least = np.partition(values, len(values) - k)[len(values) - k]
    above, tied = values > least, values == least
    return above + tied * ((k - above.sum()) / tied.sum())


def _pair(one: Any, other: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two maps of one shape, flat. Raises InputError."""
    first, second = finite("a map", one), finite("a map", other)
    if first.shape != second.shape or first.size < 2:
        raise InputError(f"maps of {list(first.shape)} and {list(second.shape)}: one shape of two cells or more is due")
    return first.ravel(), second.ravel()


def library(name: str) -> Any:
    """A library of the extra `metrics`, imported on use. Raises LibraryError."""
    try:
        return import_module(name)
    except ImportError as error:
        raise LibraryError(f"this metric needs {name} ({reason(error)}): pip install 'dexar-fast[metrics]'") from error
