"""The exact greedy search: every region left is tried at every step."""

from dexar_fast.methods.eagle.greedy.ranking import Ranking
from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.greedy.scorer import Scorer


def exact(scorer: Scorer) -> SearchResult:
    """N (N + 1) forwards. Of equals the first in the order of the regions goes first."""
    ranking = Ranking(scorer)
    while ranking:
        scores = scorer.scores(ranking.with_each(ranking.left))
        best = int(scores.objective.argmax())
        ranking.append(ranking.left[best], scores[[best]], verified=True)
    return ranking.result()
