"""Where facts are found out: on the GPU, or in a rehearsal on the device of `tests/support/fake_gpu.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from bench.subjects import Subject, subject
from dexar_fast.profile.shapes import build

ROUNDS = 5


@dataclass(frozen=True)
class Place:
    """A device, and a way to count what work has it do."""

    device: torch.device
    tiny: bool
    count: Callable[[Callable[[], Any]], dict[str, float]]
    wait: Callable[[], None]  # until the device has caught up
    prepared: Callable[[Subject], Subject]  # a subject made on the CPU if `tiny`, else on the device

    def seconds(self, work: Callable[[], Any]) -> float:
        """Of one call, until the device has caught up."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def measured(self, work: Callable[[], Any]) -> dict[str, float]:
        """Median seconds of some calls, and counts of one more."""
        return {"seconds": median(self.seconds(work) for _ in range(ROUNDS))} | self.count(work)

    def subject(self, shape: str, tokens: int) -> Subject:
        dtype = torch.float32 if self.tiny else torch.bfloat16
        device = "cpu" if self.tiny else self.device
        return self.prepared(subject(build(shape, device, dtype, tiny=self.tiny), tokens))


@contextmanager
def card() -> Iterator[Place]:
    from bench.gpu.facts.profiled import counts

    yield Place(torch.device("cuda"), False, counts, torch.cuda.synchronize, lambda found: found)


@contextmanager
def rehearsed() -> Iterator[Place]:
    import fake_gpu
    import launches

    def counts(work: Callable[[], Any]) -> dict[str, float]:
        with fake_gpu.counting() as found:
            work()
        return {kind: found.of(kind) for kind in launches.KINDS}

    def moved(found: Subject) -> Subject:
        there = {name: x.to(fake_gpu.DEVICE) for name, x in found.inputs.items()}
        return Subject(fake_gpu.moved(found.model), there, found.targets)

    with fake_gpu.on_the_device(), launches.trusted():
        yield Place(fake_gpu.DEVICE, True, counts, lambda: None, moved)
