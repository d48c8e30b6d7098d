"""An order of regions that grows from both ends, with the scores it was found by."""

from __future__ import annotations

import torch
from torch import Tensor

from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.greedy.scorer import Scorer
from dexar_fast.methods.eagle.greedy.scores import Scores


class Ranking:
    """Regions placed from the front, the most important first, and from behind; `left` are those between.

    A place at the front has the score of the regions up to it, a place behind the score of all before it.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.left = list(range(scorer.regions))
        self._scorer = scorer
        self._head: list[int] = []
        self._tail: list[int] = []
        self._head_scores: list[Scores] = []
        self._tail_scores: list[Scores] = []
        self._verified: dict[int, bool] = {}

    def __bool__(self) -> bool:
        """Whether there is still something to decide."""
        return len(self.left) > 1

    def with_each(self, regions: list[int]) -> Tensor:
        """bool [len(regions), N]: the head and one of these."""
        return self._scorer.mask(self._head) | self._scorer.each(regions)

    def without_each(self, regions: list[int]) -> Tensor:
        """bool [len(regions), N]: all but the tail and one of these."""
        return ~(self._scorer.mask(self._tail) | self._scorer.each(regions))

    def append(self, region: int, scores: Scores, verified: bool) -> None:
        """Takes a region out of `left`, to the end of the head."""
        self._take(region, verified)
        self._head.append(region)
        self._head_scores.append(scores)

    def prepend(self, region: int, scores: Scores, verified: bool) -> None:
        """Takes a region out of `left`, to the front of the tail."""
        self._take(region, verified)
        self._tail.insert(0, region)
        self._tail_scores.insert(0, scores)

    def _take(self, region: int, verified: bool) -> None:
        self.left.remove(region)
        self._verified[region] = verified

    def result(self) -> SearchResult:
        """With all regions placed: those left stand between. Two more forwards, of the whole picture and of none."""
        order = self._head + self.left + self._tail
        whole = self._scorer.scores(self._scorer.mask(order)[None])
        scores = Scores.joined([*self._head_scores, *self._tail_scores, whole])
        return SearchResult(
            order=torch.tensor(order),
            insertion=scores.insertion,
            deletion=scores.deletion,
            objective=scores.objective,
            empty=whole.deletion[0],
            full=whole.insertion[0],
            weights=self._scorer.weights,
            tail=len(self._tail),
            verified=torch.tensor([self._verified.get(region, True) for region in order]),
            forwards=self._scorer.memo.asked,
            evaluated=self._scorer.memo.evaluated,
        )
