"""Few cases that hold every pair of values of any two axes."""

from __future__ import annotations

from itertools import combinations
from typing import Any

Pair = frozenset[tuple[str, Any]]


def pairwise(axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Greedy: each case begins with a pair that is still missing, and takes along as many others as it can."""
    missing = {
        frozenset({(a, x), (b, y)}): None for a, b in combinations(axes, 2) for x in axes[a] for y in axes[b]
    }  # a dict keeps its order: the cases are the same in every run
    cases = []
    while missing:
        case = dict(next(iter(missing)))
        for axis in sorted(axes.keys() - case.keys(), key=list(axes).index):
            case[axis] = max(axes[axis], key=lambda value: _covered(case, axis, value, missing))
        for pair in combinations(case.items(), 2):
            missing.pop(frozenset(pair), None)
        cases.append({axis: case[axis] for axis in axes})  # a set has none: the order is that of the axes in every run
    return cases


def _covered(case: dict[str, Any], axis: str, value: Any, missing: dict[Pair, None]) -> int:
    return sum(frozenset({(axis, value), known}) in missing for known in case.items())
