"""Predicts what pictures score from those already scored: the tokens' log-odds, linear around one picture."""

from __future__ import annotations

import torch
from torch import Tensor

REACH = 4.0  # regions: a picture that differs in so many more counts less by a factor of e
RIDGE = 0.05
CLIP = 1e-5  # probabilities closer to 0 or 1 count as this close


class LocalModel:
    """A ridge regression of log-odds on what pictures reveal; those that differ in few regions weigh most."""

    def __init__(self) -> None:
        self._revealed: list[Tensor] = []
        self._log_odds: list[Tensor] = []

    def add(self, revealed: Tensor, probabilities: Tensor) -> None:
        """bool [B, N] and what they scored, [B, n]."""
        self._revealed.append(revealed.double())
        self._log_odds.append(_log_odds(probabilities))

    def flipped(self, revealed: Tensor, probabilities: Tensor) -> Tensor:
        """[N, n] float64: what a picture, bool [N], is predicted to score with any one region flipped.

        Args:
            probabilities: [n], what the picture itself scores.
        """
        now = _log_odds(probabilities)
        sign = 1 - 2 * revealed.double()
        return torch.sigmoid(now + sign[:, None] * self._slopes(revealed.double(), now))

    def _slopes(self, revealed: Tensor, now: Tensor) -> Tensor:
        """[N, n], the log-odds that revealing each region adds around a picture."""
        differences = torch.cat(self._revealed) - revealed
        weights = torch.exp(-(differences.abs().sum(1) - 1).clamp(min=0) / REACH)
        weighted = (differences * weights[:, None]).T
        penalty = RIDGE * torch.eye(len(revealed), dtype=torch.float64)
        return torch.linalg.solve(weighted @ differences + penalty, weighted @ (torch.cat(self._log_odds) - now))


def _log_odds(probabilities: Tensor) -> Tensor:
    return torch.logit(probabilities.double(), CLIP)
