"""How fast an answer gets lost while the picture is removed in order of a map: pure functions of log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import InputError
from dexar_fast.metrics.maps import finite

FRACTIONS = tuple(step / 10 for step in range(10))  # removed: 0, .1, ... .9


def normalised_perplexity(log_probabilities: Any) -> NDArray[np.float64]:
    """PPL at each step / PPL of the whole picture, PPL = exp(-mean log p of the original answer's tokens).

    Two tokens at log p [-1, -1], then [-1, -3]: exp(2 - 1) = 2.718, so [1, 2.718]. That the paper means this ratio is
    inferred from the magnitudes it gives (18.1 and 1.13). Chance: the curve of a random smooth and of a centred map in
    the same pictures; it differs from 1, since removing anything costs.

    Args:
        log_probabilities: [K, T] of T tokens after K steps; the first with nothing removed.
    Raises:
        InputError: another shape, NaN or infinity, or a value above 0.
    """
    values = finite("log_probabilities", log_probabilities, 2)
    if values.max() > 1e-6:
        raise InputError(f"log_probabilities reach {values.max():.3g}: logarithms of probabilities are at most 0")
    means = values.mean(1)
    return np.exp(means[0] - means)


def area(curve: Any, fractions: Any = FRACTIONS) -> float:
    """Mean height of a curve over the removed fraction: the trapezoid rule, divided by the width (.9).

    [1, 2, 4] over [0, .2, .4]: (.3 + .6) / .4 = 2.25. Positive order (most important first): higher is better;
    negative: lower is better. Chance: one area in both, on average over maps that know nothing. Where every part of the
    picture matters alike it is that of any map: exp(f) after the share f is (e^.9 - 1) / .9 = 1.62.

    Raises:
        InputError: lists of different lengths, fewer than two steps, or fractions that do not rise.
    """
    heights, places = finite("a curve", curve, 1), finite("fractions", fractions, 1)
    if heights.shape != places.shape or len(places) < 2 or not (np.diff(places) > 0).all():
        raise InputError(f"{len(heights)} heights over {len(places)} fractions: as many, rising, two at least are due")
    return float(trapezoid(heights, places) / (places[-1] - places[0]))


def trapezoid(heights: NDArray[np.float64], places: NDArray[np.float64]) -> float:
    """The area under straight lines between the points; in both directions positive, as scikit-learn's auc."""
    return abs(float((np.diff(places) * (heights[1:] + heights[:-1]) / 2).sum()))
