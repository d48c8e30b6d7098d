"""The authors' efficient search: few regions are tried at the front, few at the end, and all of them now and then."""

from __future__ import annotations

import torch

from dexar_fast.methods.eagle.greedy.exact import exact
from dexar_fast.methods.eagle.greedy.ranking import Ranking
from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.greedy.scorer import Scorer
from dexar_fast.methods.eagle.greedy.scores import Scores


def efficient(scorer: Scorer, scope: int, pending: int, refresh: int) -> SearchResult:
    """Every `refresh` steps all regions left are tried and sorted; between, only the first `scope` of that order.

    Each step also tries to hide one of the last `pending`. Two regions or fewer, or pending = 0, are searched exactly.
    """
    if scorer.regions < 3 or pending == 0:
        return exact(scorer)
    ranking, step = Ranking(scorer), 0
    while ranking:
        scores = _sorted(scorer, ranking) if step % refresh == 0 else _first(scorer, ranking, scope)
        _append(ranking, scores)
        if step == 0:
            _prepend_worst_alone(scorer, ranking, scores)
        elif len(ranking.left) > pending:
            _prepend(scorer, ranking, pending)
        step += 1
    return ranking.result()


def _sorted(scorer: Scorer, ranking: Ranking) -> Scores:
    """Of all regions left, which are put in this order, the best first. Like theirs it is not stable among equals."""
    scores = scorer.scores(ranking.with_each(ranking.left))
    best_first = torch.argsort(scores.objective, descending=True)
    ranking.left = [ranking.left[row] for row in best_first.tolist()]
    return scores[best_first]


def _first(scorer: Scorer, ranking: Ranking, scope: int) -> Scores:
    return scorer.scores(ranking.with_each(ranking.left[:scope]))


def _append(ranking: Ranking, scores: Scores) -> None:
    best = int(scores.objective.argmax())
    verified = len(scores.objective) == len(ranking.left)
    ranking.append(ranking.left[best], scores[[best]], verified)


def _prepend_worst_alone(scorer: Scorer, ranking: Ranking, scores: Scores) -> None:
    """The last of all single regions. What hides it alone is known: the same two pictures, the other way round."""
    ranking.prepend(ranking.left[-1], scorer.weights.swapped(scores[-1:]), verified=True)


def _prepend(scorer: Scorer, ranking: Ranking, pending: int) -> None:
    last = ranking.left[-pending:]
    scores = scorer.scores(ranking.without_each(last))
    best = int(scores.objective.argmax())
    ranking.prepend(last[best], scores[[best]], verified=len(last) == len(ranking.left))
