"""How a cost grows: the slope of a straight line through its largest sizes on log-log paper, with a 95 % interval.

At small sizes what does not depend on x (the prompt's prefill, a launch) bends the line down; so the line goes through
the largest five. At large ones the pairs of attention bend it up, for a plain forward as for an explanation: the two
exponents are to be read side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

POINTS = 5
QUANTILE = 3.182  # Student's t, 97.5 %, of the POINTS - 2 degrees of freedom


@dataclass(frozen=True)
class Growth:
    """cost ~ x ** exponent between two sizes; low and high bound the exponent's 95 % interval."""

    exponent: float
    low: float
    high: float
    first: float
    last: float


def growth(xs: Sequence[float], costs: Sequence[float]) -> Growth:
    """The exponent over the largest POINTS of the sizes xs [n], in ascending order, from costs [n].

    Raises:
        ValueError: too few points, or one that is not positive.
    """
    if len(xs) < POINTS or min(*xs, *costs) <= 0:
        raise ValueError(f"an exponent with its interval needs at least {POINTS} positive points")
    x, y = np.log(xs[-POINTS:]), np.log(costs[-POINTS:])
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    residual = y - y.mean() - slope * centred
    error = QUANTILE * math.sqrt(float(residual @ residual) / (POINTS - 2) / float(centred @ centred))
    return Growth(slope, slope - error, slope + error, float(xs[-POINTS]), float(xs[-1]))
