"""How sure a mean over items is, and a difference between two methods on the same items. Pure functions.

A figure is `combine` of the means of an item's parts: of one part the mean itself, of several such as a ratio of means.
Items of one group (questions about one picture) are drawn, and change places, together: they are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import InputError
from dexar_fast.metrics.maps import finite

Combine = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Means [..., P] of P parts to figures [...]."""
DRAWS = 2000
LEVEL = 95.0  # percent of the intervals
MOST_FLIPS = 12  # pairs of which every pattern of signs is tried
TIE = 1e-9  # of the largest difference: two that are closer count as equal


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """How far one method is above another on the same items, its 95 % interval, and how often chance does as much."""

    value: float
    low: float
    high: float
    p: float


def mean(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The figure of a single part."""
    return means[..., 0]


Groups = Sequence[Hashable] | None
"""Of each item its group; None: each is one of its own."""


def estimate(
    parts: Any, combine: Combine = mean, *, groups: Groups = None, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """A figure over items, and the percentile bootstrap interval that resampling the items gives.

    Parts [[0], [1]]: .5; the means of resamples are 0, .5 and 1 with chances 1/4, 1/2 and 1/4, so the interval is
    [0, 1]. One item has an interval of no width: it says nothing.

    Args:
        parts: [n, P] of n items. groups: [n].
    Raises:
        InputError: no [n, P] of finite numbers.
    """
    values = finite("parts", parts, 2)
    sums, counts = _summed(values, groups)
    drawn = combine(_means(_resampled(len(sums), draws, seed), sums, counts))
    return Estimate(float(combine(values.mean(0))), *_interval(drawn))


def difference(
    one: Any, other: Any, combine: Combine = mean, *, groups: Groups = None, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """Paired: the items are resampled for both at once; for p, the two change places in items chosen at random.

    [[1], [2], [3]] and zeros: 2. Of the 8 patterns of signs two have a mean of at least 2 either way, so p = 2 / 8. All
    patterns are tried for up to 12 items; of more, p = (1 + as much) / (1 + draws). Equal figures differ by 0, two
    infinite ones too.

    Args:
        one, other: [n, P] of the same n items. groups: [n].
    Raises:
        InputError: as `estimate`, or other shapes.
    """
    first, second = finite("parts", one, 2), finite("parts", other, 2)
    if first.shape != second.shape:
        raise InputError(f"parts {list(first.shape)} and {list(second.shape)}: the same items and parts are due")
    value = float(_minus(combine(first.mean(0)), combine(second.mean(0))))
    (sums, counts), (others, _) = _summed(first, groups), _summed(second, groups)
    weights = _resampled(len(sums), draws, seed)
    drawn = _minus(*(combine(_means(weights, each, counts)) for each in (sums, others)))
    return Difference(value, *_interval(drawn), _by_chance(sums, others, len(first), combine, value, draws, seed))


def _summed(values: NDArray[np.float64], groups: Groups) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sums [G, P] of the items of each group, and how many they are [G, 1]. Raises InputError."""
    own = range(len(values)) if groups is None else groups
    if len(own) != len(values):
        raise InputError(f"{len(own)} groups of {len(values)} items: one each is due")
    places = {group: place for place, group in enumerate(dict.fromkeys(own))}
    found = np.zeros((len(places), values.shape[1] + 1))
    np.add.at(found, [places[group] for group in own], np.column_stack([values, np.ones(len(values))]))
    return found[:, :-1], found[:, -1:]


def _means(weights: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """[draws, P], over the items of the groups that were drawn."""
    found: NDArray[np.float64] = (weights @ sums) / (weights @ counts)
    return found


def _by_chance(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    items: int,
    combine: Combine,
    value: float,
    draws: int,
    seed: int,
) -> float:
    swaps, every = _swaps(len(one), draws, seed)
    moved = swaps @ (one - other)
    found = np.abs(_minus(combine((one.sum(0) - moved) / items), combine((other.sum(0) + moved) / items)))
    rounding = TIE * found.max(initial=0, where=np.isfinite(found))
    as_much = int((found >= abs(value) - rounding).sum())
    return as_much / len(swaps) if every else (1 + as_much) / (1 + draws)


def _minus(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.where(one == other, 0.0, one - other)


@lru_cache(maxsize=8)
def _swaps(items: int, draws: int, seed: int) -> tuple[NDArray[np.float64], bool]:
    """[K, n], 1 where the two change places; and whether these are all patterns."""
    if items <= MOST_FLIPS:
        patterns = np.arange(2**items)[:, None] >> np.arange(items) & 1
        return patterns.astype(np.float64), True
    return np.random.default_rng(seed).integers(0, 2, (draws, items)).astype(np.float64), False


@lru_cache(maxsize=8)
def _resampled(items: int, draws: int, seed: int) -> NDArray[np.float64]:
    """[draws, n], the weight of each group in each resample; rows sum to 1."""
    return np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), draws) / items


def _interval(drawn: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 %: values that were drawn, so that infinity among them does no harm."""
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail], method="inverted_cdf")
    return float(low), float(high)
