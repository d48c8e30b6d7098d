"""What this machine can do, measured: the best of a copy and of a matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

REPEATS = 7
COPIED = {"cpu": 2**27, "cuda": 2**31}  # bytes
SIDE = {"cpu": 1536, "cuda": 8192}  # of the square matrices


@dataclass(frozen=True)
class Limits:
    """The limits of one device and dtype."""

    flops_per_second: float
    bytes_per_second: float

    def seconds(self, flops: float, moved: float) -> float:
        """The least time for this much arithmetic and this many bytes (the roofline)."""
        return max(flops / self.flops_per_second, moved / self.bytes_per_second)


def limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """Times a product of two square matrices, and a copy that reads and writes each byte once."""
    side, count = SIDE[device.type], COPIED[device.type]
    left, right, out = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(3))
    product = _best(lambda: torch.mm(left, right, out=out), device)
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Limits(2 * side**3 / product, 2 * count / _best(lambda: target.copy_(source), device))


def _best(run: Callable[[], Any], device: torch.device) -> float:
    run()
    return min(timed(run, device)[1] for _ in range(REPEATS))


def timed(run: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """(what run() returns, seconds), all of its work on a GPU included."""
    synchronize(device)
    start = time.perf_counter()
    result = run()
    synchronize(device)
    return result, time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Waits for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
