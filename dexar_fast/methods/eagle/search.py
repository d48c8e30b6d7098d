"""The search by itself: it orders regions by how much an answer needs them, over any scorer of pictures."""

from __future__ import annotations

from typing import Literal, get_args

from dexar_fast.methods import knobs
from dexar_fast.methods.eagle.greedy.efficient import efficient
from dexar_fast.methods.eagle.greedy.exact import exact
from dexar_fast.methods.eagle.greedy.guided import guided
from dexar_fast.methods.eagle.greedy.lazy import lazy
from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.greedy.scorer import Probabilities, Scorer
from dexar_fast.methods.eagle.greedy.scores import Weights

Variant = Literal["exact", "efficient", "lazy", "guided"]

LEAST, USUAL = 4, 12  # forwards a region in the budget of a guided search


def search(
    probabilities: Probabilities,
    regions: int,
    *,
    lambda1: float = 1.0,
    lambda2: float = 1.0,
    variant: Variant = "exact",
    scope: int = 10,
    pending: int = 8,
    refresh: int = 5,
    budget: int | None = None,
) -> SearchResult:
    """Orders N regions so that the first reveal most of n chosen tokens, and hiding these loses most (EAGLE).

    Greedy over F(S) = mean over tokens of lambda1 * p(S) + lambda2 * (1 - p(all but S)). Of equals the first wins.

    Args:
        probabilities: from bool [B, N], the regions that each of B pictures reveals, to float [B, n], what the chosen
            tokens have. All candidates of a step come in one call, with what each hides; no picture comes twice.
        regions: N, at least 1. lambda1, lambda2: weights of sufficiency and indispensability, 0 or more.
        variant: "exact" tries every region left at every step, N (N + 1) forwards. "efficient" is the authors' search:
            the best `scope` from the front, the worst `pending` from behind, and all every `refresh` steps. "lazy"
            tries regions whose gain once was the largest, and all every `refresh` steps. "guided" tries what a model of
            all scores so far promises most, with `budget` forwards: 4 N or more, None is 12 N.
    Raises:
        InputError: a value outside its range, or a scorer that returns something else than it must.
        NumericalError: NaN or a value outside [0, 1] from the scorer.
    """
    check(scope, pending, refresh, variant)
    regions = knobs.whole("regions", regions, 1)
    scorer = Scorer(probabilities, regions, Weights(knobs.real("lambda1", lambda1), knobs.real("lambda2", lambda2)))
    budget = knobs.whole("budget", USUAL * regions if budget is None else budget, LEAST * regions)
    if variant == "guided":
        return guided(scorer, budget)
    if variant == "lazy":
        return lazy(scorer, int(refresh))
    return exact(scorer) if variant == "exact" else efficient(scorer, int(scope), int(pending), int(refresh))


def check(scope: int, pending: int, refresh: int, variant: str) -> None:
    """Refuses what no search takes, however many regions there are. Raises InputError."""
    knobs.whole("scope", scope, 1)
    knobs.whole("pending", pending, 0)
    knobs.whole("refresh", refresh, 1)
    knobs.one_of("variant", variant, get_args(Variant))
