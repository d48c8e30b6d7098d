"""How a cost grows: the exponent of a power law beside a fixed cost, with its 95 % interval.

    cost(x) = constant + factor * x ** exponent + pairs * x ** 2,    no coefficient negative

A straight line on log-log paper would bend: what does not depend on x (the prompt's prefill, a launch) hides growth at
small sizes, and the pairs of attention add their own at large ones. So the fixed part and, where asked for, the pairs
are fitted along, the errors relative to each cost; the exponent's interval holds all values that fit about as well
(profile likelihood).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Student's t, 97.5 %, by degrees of freedom; beyond the table the normal distribution's 1.96 is near enough.
QUANTILES = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
EXPONENTS = np.arange(0.0, 3.0001, 0.005)
EXACT = 1e-12  # squared relative errors below this are rounding


@dataclass(frozen=True)
class Growth:
    """The law above, fitted; the shares are parts of the cost at the largest x."""

    exponent: float
    low: float
    high: float
    constant_share: float
    power_share: float
    pairs_share: float
    points: int


def growth(xs: Sequence[float], costs: Sequence[float], pairs: bool = False) -> Growth:
    """Fits the law to costs [n] at sizes xs [n]; with `pairs` it has the quadratic term.

    Raises:
        ValueError: too few points for an interval, or one that is not positive.
    """
    free = len(xs) - (4 if pairs else 3)
    if free < 1 or min(*xs, *costs) <= 0:
        raise ValueError("a growth law with an interval needs at least four positive points, five with pairs")
    x, y = np.asarray(xs, float) / max(xs), np.asarray(costs, float)
    fits = [_fitted(x, y, exponent, pairs) for exponent in EXPONENTS]
    errors = np.array([error for _, error in fits])
    best = int(errors.argmin())
    quantile = QUANTILES[free] if free < len(QUANTILES) else 1.96
    near = EXPONENTS[errors <= max(errors[best], EXACT) * (1 + quantile**2 / free)]
    shares = fits[best][0] / y[int(x.argmax())]  # x is 1 there
    return Growth(float(EXPONENTS[best]), float(near[0]), float(near[-1]), *map(float, shares), points=len(xs))


def _fitted(x: np.ndarray, y: np.ndarray, exponent: float, pairs: bool) -> tuple[np.ndarray, float]:
    """The coefficients [3] of constant, power and pairs for one exponent, and the squared relative error they leave."""
    columns = np.stack([np.ones_like(x), x**exponent, x**2], 1) / y[:, None]
    best, least = np.zeros(3), math.inf
    for size in range(1, 4 if pairs else 3):
        for chosen in itertools.combinations(range(3 if pairs else 2), size):
            found = np.linalg.lstsq(columns[:, chosen], np.ones(len(x)), rcond=None)[0]
            error = float(((columns[:, chosen] @ found - 1) ** 2).sum())
            if (found >= 0).all() and error < least:
                best, least = np.zeros(3), error
                best[list(chosen)] = found
    return best, least
