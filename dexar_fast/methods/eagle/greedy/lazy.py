"""The lazy greedy search: a gain that was found earlier stands for the gain now, until its region would be taken.

Exact where gains only fall as regions are added (submodular). EAGLE's objective is not: a word may need several regions
at once. So all gains are found anew every so many steps.
"""

from __future__ import annotations

from dexar_fast.methods.eagle.greedy.ranking import Ranking
from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.greedy.scorer import Scorer
from dexar_fast.methods.eagle.greedy.scores import Scores


def lazy(scorer: Scorer, refresh: int) -> SearchResult:
    """Every `refresh` steps all regions left are tried; between, those whose gain once was the largest."""
    ranking, gains, objective, step = Ranking(scorer), dict[int, float](), 0.0, 0
    while ranking:
        tried = _tried(scorer, ranking, ranking.left, gains, objective) if step % refresh == 0 else {}
        while (best := max(ranking.left, key=gains.__getitem__)) not in tried:
            tried |= _tried(scorer, ranking, [best], gains, objective)
        objective = float(tried[best].objective)
        ranking.append(best, tried[best], verified=len(tried) == len(ranking.left))
        step += 1
    return ranking.result()


def _tried(
    scorer: Scorer, ranking: Ranking, regions: list[int], gains: dict[int, float], objective: float
) -> dict[int, Scores]:
    """Each of some regions behind the head; their gains are noted."""
    scores = scorer.scores(ranking.with_each(regions))
    gains.update(zip(regions, (scores.objective - objective).tolist(), strict=True))
    return {region: scores[[row]] for row, region in enumerate(regions)}
