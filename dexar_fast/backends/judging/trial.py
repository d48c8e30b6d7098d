"""What a kernel is tried by: problems whose answers are known, and two calls to be timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Compared:
    """A result, what it should be, and what it may differ by; a slack of None allows nothing."""

    found: Tensor
    wanted: Tensor
    slack: Tensor | None

    @property
    def error(self) -> float:
        """The largest difference as a part of what is allowed; above 1 the result is wrong."""
        found, wanted = self.found.detach().cpu().double(), self.wanted.detach().cpu().double()
        if found.shape != wanted.shape:
            return torch.inf
        off = torch.where(found.isnan() & wanted.isnan(), 0, (found - wanted).abs()).nan_to_num(
            torch.inf, posinf=torch.inf
        )
        if self.slack is None:
            return 0.0 if not off.any() else torch.inf
        parts = off / self.slack.cpu().double()
        return float(torch.where(off == 0, 0, parts).max()) if parts.numel() else 0.0


@dataclass(frozen=True)
class Trial:
    """One kernel at one set of sizes.

    Attributes:
        kernel, baseline: what is timed, at the sizes of the case.
        checks: runs the kernel on one problem after another.
    """

    kernel: Callable[[], Any]
    baseline: Callable[[], Any]
    checks: Callable[[], Iterator[Compared]]

    def worst(self) -> float:
        """The largest error of all; not above 1 if the kernel is right."""
        return max(each.error for each in self.checks())


def drawn(shapes: Iterable[tuple[int, ...]], dtype: torch.dtype, device: torch.device, seed: int = 0) -> list[Tensor]:
    """Normal numbers, the same on every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return [torch.randn(shape, generator=generator, device="cpu").to(device, dtype) for shape in shapes]
