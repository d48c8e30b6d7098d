"""The guided search: a model of what has been scored so far says which regions are worth a try, within a budget.

Regions are added at the front as long as the objective rises: the answer needs these. The others are placed from
behind, hidden one by one from the whole picture: with few regions hidden it looks more natural than black with few
regions in it, and its scores jump less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dexar_fast.methods.eagle.greedy.exact import exact
from dexar_fast.methods.eagle.greedy.local_model import LocalModel
from dexar_fast.methods.eagle.greedy.ranking import Ranking
from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.greedy.scorer import Scorer
from dexar_fast.methods.eagle.greedy.scores import Scores

# Shares of the range that single regions cover in the objective:
TOLERANCE = 0.05  # a region that promises to gain less is not worth a try
RISE = 0.006  # less does not count as rising
SHARES = 5  # even shares of the budget left that one place may use, in rounds of half a share


def guided(scorer: Scorer, budget: int) -> SearchResult:
    """At most `budget` forwards, 4 N or more. Where they suffice for the exact search, that is taken."""
    if scorer.regions * (scorer.regions + 1) <= budget:
        return exact(scorer)
    search = _Search(scorer, budget)
    while search.ranking and search.append():
        pass
    while search.ranking:
        search.prepend()
    return search.ranking.result()


@dataclass(frozen=True)
class _End:
    """The picture that the regions at one end of the order make: the revealed head, or all but the tail."""

    revealed: Tensor  # [N] bool
    scores: Scores  # of this picture alone

    def flipped(self, regions: list[int]) -> Tensor:
        """bool [len(regions), N]: with one more region at this end."""
        return self.revealed ^ torch.eye(len(self.revealed), dtype=torch.bool)[regions]


class _Promise(NamedTuple):
    """What the objective is predicted to be with a region added."""

    region: int
    objective: float


class _Search:
    """Tries regions in the order of their promise, and learns from each."""

    def __init__(self, scorer: Scorer, budget: int) -> None:
        """Tries every region alone, and all but it: the best comes first, the worst last."""
        self.ranking = Ranking(scorer)
        self._scorer = scorer
        self._budget = budget
        self._model = LocalModel()
        self._errors: list[float] = []
        alone = scorer.each(self.ranking.left)
        scores = self._scores(alone)
        best, worst = int(scores.objective.argmax()), len(alone) - 1 - int(scores.objective.flip(0).argmin())
        self._range = float(scores.objective.max() - scores.objective.min())
        self._head = _End(alone[best], scores[[best]])
        self._rest = _End(~alone[worst], scorer.weights.swapped(scores[[worst]]))
        self.ranking.append(best, self._head.scores, verified=True)
        self.ranking.prepend(worst, self._rest.scores, verified=True)

    def append(self) -> bool:
        """Places a region at the front. False if the objective does not rise."""
        before = self._head.scores.objective
        region, self._head, verified = self._best(self._head)
        self.ranking.append(region, self._head.scores, verified)
        return bool(self._head.scores.objective > before + RISE * self._range)

    def prepend(self) -> None:
        """Places a region behind."""
        region, self._rest, verified = self._best(self._rest)
        self.ranking.prepend(region, self._rest.scores, verified)

    def _best(self, end: _End) -> tuple[int, _End, bool]:
        """The region to add at an end, the end with it, and whether all others were tried or are surely worse."""
        tried: list[int] = []
        found: list[Scores] = []
        a_round, most = self._shares()
        best, more = -math.inf, self._promises(end)
        while more and len(tried) < most and more[0].objective > best + TOLERANCE * self._range:
            batch = more[: min(a_round, most - len(tried))]
            tried += [promise.region for promise in batch]
            found.append(self._try(end, batch))
            best = max(best, float(found[-1].objective.max()))
            more = [promise for promise in self._promises(end) if promise.region not in tried]
        scores = Scores.joined(found)
        row = int(scores.objective.argmax())
        verified = not more or more[0].objective + self._error() < best
        return tried[row], _End(end.flipped(tried)[row], scores[[row]]), verified

    def _try(self, end: _End, promises: list[_Promise]) -> Scores:
        scores = self._scores(end.flipped([promise.region for promise in promises]))
        kept = zip(promises, scores.objective.tolist(), strict=True)
        self._errors += [objective - promise.objective for promise, objective in kept]
        return scores

    def _error(self) -> float:
        """Root mean square of what the predictions were off by."""
        return math.sqrt(sum(error**2 for error in self._errors) / len(self._errors))

    def _promises(self, end: _End) -> list[_Promise]:
        """Of all regions left, the best first."""
        insertion = self._model.flipped(end.revealed, end.scores.insertion[0])
        deletion = self._model.flipped(~end.revealed, end.scores.deletion[0])
        objective = self._scorer.weights.objective(insertion, deletion).tolist()
        promises = [_Promise(region, objective[region]) for region in self.ranking.left]
        return sorted(promises, key=lambda promise: -promise.objective)

    def _shares(self) -> tuple[int, int]:
        """How many regions to try at once for the next place, and at most."""
        others = len(self.ranking.left) - 1
        spare = (self._budget - self._scorer.memo.asked - 2) // 2 - others  # beyond one region a place
        return 1 + spare // (2 * others), 1 + min(spare * SHARES // others, spare)

    def _scores(self, revealed: Tensor) -> Scores:
        scores = self._scorer.scores(revealed)
        self._model.add(torch.cat([revealed, ~revealed]), torch.cat([scores.insertion, scores.deletion]))
        return scores
