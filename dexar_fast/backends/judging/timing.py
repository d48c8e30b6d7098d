"""Which of two calls is faster, on a machine that others use too: many short rounds, one call after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

ROUNDS, NEEDED, MARGIN = 10, 8, 1.1  # rounds; of them to be won; times as fast
WARM, ROUND, MOST = 0.05, 0.02, 200  # seconds of warming, of a round of the slower call; calls of a round at most


@dataclass(frozen=True)
class Race:
    """What came of it."""

    won: int  # rounds
    ratio: float  # how many times as fast, the median over rounds

    @property
    def is_faster(self) -> bool:
        """By enough that the answer is the same tomorrow."""
        return self.won >= NEEDED and self.ratio >= MARGIN


def race(kernel: Callable[[], Any], baseline: Callable[[], Any], wait: Callable[[], None]) -> Race:
    """Wall time back to back, launches among it: small calls are bound by the host.

    Args:
        wait: returns once all that was launched has run.
    """
    calls = min(_warmed(kernel, wait), _warmed(baseline, wait))
    ratios = []
    for number in range(ROUNDS):
        order = (kernel, baseline) if number % 2 else (baseline, kernel)
        seconds = {call: _seconds(call, calls, wait) for call in order}
        ratios.append(seconds[baseline] / seconds[kernel])
    return Race(sum(ratio > 1 for ratio in ratios), median(ratios))


def _warmed(call: Callable[[], Any], wait: Callable[[], None]) -> int:
    """How many calls fill a round, once clocks and caches are as they will be."""
    start, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - start < WARM:
        call()
        wait()
        done += 1
    each = (time.perf_counter() - start) / done
    return min(MOST, max(1, round(ROUND / each)))


def _seconds(call: Callable[[], Any], calls: int, wait: Callable[[], None]) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait()
    return time.perf_counter() - start
