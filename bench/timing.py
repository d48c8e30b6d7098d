"""Jobs in turn, round by round: what slows the machine down slows all of them down alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

Timer = Callable[[Callable[[], Any]], float]

FLUSHED_BYTES = 2**28  # more than the L2 cache of any GPU


@dataclass(frozen=True)
class Job:
    """Something to time; inputs and outputs that can be made beforehand are."""

    name: str
    about: str
    run: Callable[[], Any]
    rounds: int | None = None  # at most so many, of a job that takes minutes


def cpu_timer(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@cache
def cuda_timer() -> Timer:
    """Seconds between two events around one call, with a cold L2 cache."""
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.int8, device="cuda")

    def timer(run: Callable[[], Any]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flushed.zero_()
        torch.cuda.synchronize()
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return timer


def timer_on(device: str) -> Timer:
    """The timer for work on a device."""
    return cuda_timer() if device == "cuda" else cpu_timer


def interleaved(
    jobs: Iterable[Job], rounds: int, warm_ups: int = 1, timer: Timer = cpu_timer
) -> dict[str, list[float]]:
    """Seconds of each job in every round, after `warm_ups` rounds that do not count.

    Every round begins with another job, so that none always runs behind the same one. A job with fewer rounds of its
    own runs in the first ones, and is not warmed up: it is slow enough not to need it.
    """
    jobs = list(jobs)
    seconds: dict[str, list[float]] = {job.name: [] for job in jobs}
    for job in (job for _ in range(warm_ups) for job in jobs if job.rounds is None):
        job.run()
    for round_ in range(rounds):
        first = round_ % len(jobs)
        for job in jobs[first:] + jobs[:first]:
            if job.rounds is None or round_ < job.rounds:
                seconds[job.name].append(timer(job.run))
    return seconds
