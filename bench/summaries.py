"""Minimum, median and 20/80 percentiles of rounds, and of ratios within rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest ranks, as numpy's default: 0 is the minimum, 1 the maximum."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below, above = math.floor(place), math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(rounds: Sequence[float]) -> dict[str, Any]:
    """What is stored and printed of one job, or of one ratio."""
    return {
        "min": min(rounds),
        "median": statistics.median(rounds),
        "p20": percentile(rounds, 0.2),
        "p80": percentile(rounds, 0.8),
        "rounds": list(rounds),
    }


def within_rounds(job: Sequence[float], floor: Sequence[float]) -> list[float]:
    """job / floor of every round that both ran in."""
    return [a / b for a, b in zip(job, floor, strict=False)]
