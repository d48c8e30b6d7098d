"""Asks for the probabilities of partly revealed pictures: in one call a step, counted, and for no picture twice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dexar_fast.errors import InputError, NumericalError
from dexar_fast.methods.eagle.greedy.scores import Scores, Weights

Probabilities = Callable[[Tensor], Tensor]  # revealed, bool [B, N], on the CPU -> float [B, n]


class Memo:
    """Remembers the probabilities of every picture it was asked about.

    Attributes:
        asked: pictures asked about, those known already included.
    """

    def __init__(self, probabilities: Probabilities) -> None:
        self.asked = 0
        self._probabilities = probabilities
        self._known: dict[bytes, Tensor] = {}

    @property
    def evaluated(self) -> int:
        """Pictures that `probabilities` was called for: no picture twice."""
        return len(self._known)

    def __call__(self, revealed: Tensor) -> Tensor:
        """bool [B, N] -> float32 [B, n], on the CPU."""
        self.asked += len(revealed)
        keys = [row.tobytes() for row in np.packbits(revealed.numpy(), axis=1)]
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        if new:
            self._known |= zip(new, self._evaluate(revealed[list(new.values())]), strict=True)
        return torch.stack([self._known[key] for key in keys])

    def _evaluate(self, revealed: Tensor) -> Tensor:
        found = self._probabilities(revealed)
        _check(found, len(revealed), next(iter(self._known.values()), None))
        return found.detach().to("cpu", torch.float32)


def _check(found: Tensor, pictures: int, known: Tensor | None) -> None:
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != pictures or found.shape[1] == 0:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"the scorer must return a tensor [{pictures}, tokens], one row a picture, not {shape}")
    if known is not None and found.shape[1] != len(known):
        raise InputError(f"the scorer returned {found.shape[1]} tokens a picture, {len(known)} before")
    if not found.is_floating_point():
        raise InputError(f"the scorer must return floats, not {found.dtype}")
    if not ((found >= 0) & (found <= 1)).all():
        raise NumericalError("the scorer returned what is no probability: NaN, or a value outside [0, 1]")


class Scorer:
    """Scores pictures of N regions by the objective."""

    def __init__(self, probabilities: Probabilities, regions: int, weights: Weights) -> None:
        self.memo = Memo(probabilities)
        self.regions = regions
        self.weights = weights

    def mask(self, regions: list[int]) -> Tensor:
        """bool [N]: all of these regions."""
        mask = torch.zeros(self.regions, dtype=torch.bool)
        mask[regions] = True
        return mask

    def each(self, regions: list[int]) -> Tensor:
        """bool [len(regions), N]: every one of these regions alone."""
        return torch.eye(self.regions, dtype=torch.bool)[regions]

    def scores(self, revealed: Tensor) -> Scores:
        """Of C pictures, bool [C, N], and the C that reveal the rest, in one call."""
        insertion, deletion = self.memo(torch.cat([revealed, ~revealed])).split(len(revealed))
        return self.weights.scores(insertion, deletion)
