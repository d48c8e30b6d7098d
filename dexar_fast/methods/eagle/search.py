"""The search by itself: it orders regions by how much an answer needs them, over any scorer of pictures."""

from __future__ import annotations

import math
from typing import Literal, get_args

from dexar_fast.errors import InputError
from dexar_fast.methods.eagle.greedy.efficient import efficient
from dexar_fast.methods.eagle.greedy.exact import exact
from dexar_fast.methods.eagle.greedy.guided import guided
from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.greedy.scorer import Probabilities, Scorer
from dexar_fast.methods.eagle.greedy.scores import Weights

Variant = Literal["exact", "efficient", "guided"]

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
            the best `scope` from the front, the worst `pending` from behind, and all every `refresh` steps. "guided"
            tries what a model of all scores so far promises most, with `budget` forwards: 4 N or more, None is 12 N.
    Raises:
        InputError: a value outside its range, or a scorer that returns something else than it must.
        NumericalError: NaN or a value outside [0, 1] from the scorer.
    """
    scorer = Scorer(probabilities, _whole("regions", regions, 1), _weights(lambda1, lambda2))
    scope, pending, refresh = _whole("scope", scope, 1), _whole("pending", pending, 0), _whole("refresh", refresh, 1)
    _check_variant(variant)
    budget = _whole("budget", USUAL * regions if budget is None else budget, LEAST * regions)
    if variant == "guided":
        return guided(scorer, budget)
    return exact(scorer) if variant == "exact" else efficient(scorer, scope, pending, refresh)


def _check_variant(variant: str) -> None:
    if variant not in get_args(Variant):
        raise InputError(f"variant is one of {', '.join(map(repr, get_args(Variant)))}, not {variant!r}")


def _whole(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is a whole number of at least {least}, not {value!r}")
    return value


def _weights(lambda1: float, lambda2: float) -> Weights:
    for name, value in (("lambda1", lambda1), ("lambda2", lambda2)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise InputError(f"{name} is a finite number of at least 0, not {value!r}")
    return Weights(float(lambda1), float(lambda2))
