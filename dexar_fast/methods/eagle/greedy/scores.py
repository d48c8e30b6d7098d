"""What partly revealed pictures score: the objective of EAGLE, and what a search records of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """C ways to split a picture into what is revealed and what is hidden; n probabilities each."""

    insertion: Tensor  # [C, n] float32, of the revealed part alone
    deletion: Tensor  # [C, n] float32, of the hidden part alone
    objective: Tensor  # [C] float32

    def __getitem__(self, rows: slice | Tensor | list[int]) -> Scores:
        return Scores(self.insertion[rows], self.deletion[rows], self.objective[rows])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Scores:
        fields = zip(*((part.insertion, part.deletion, part.objective) for part in parts), strict=True)
        return Scores(*(torch.cat(field) for field in fields))


@dataclass(frozen=True)
class Weights:
    """How much the objective weighs sufficiency and indispensability."""

    insertion: float
    deletion: float

    def of_tokens(self, insertion: Tensor, deletion: Tensor) -> Tensor:
        """lambda1 * insertion + lambda2 * (1 - deletion), in the dtype given."""
        return self.insertion * insertion + self.deletion * (1 - deletion)

    def objective(self, insertion: Tensor, deletion: Tensor) -> Tensor:
        """The mean of `of_tokens` over the last dimension."""
        return self.of_tokens(insertion, deletion).mean(-1)

    def scores(self, insertion: Tensor, deletion: Tensor) -> Scores:
        return Scores(insertion, deletion, self.objective(insertion, deletion))

    def swapped(self, scores: Scores) -> Scores:
        """With what is revealed hidden, and the other way round."""
        return self.scores(scores.deletion, scores.insertion)
