"""How bright the maps of an answer's tokens are beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dexar_fast.errors import InputError
from dexar_fast.results.schema import Result
from dexar_fast.settings import positive

_LINES = "Lines at 0.25, 0.5 and 0.75."


def strength(explanation: Result, token: Any, scale: Any, filtered: bool) -> float:
    """How much is shown of the heat of a token or a phrase (None: of the whole answer, all of it).

    With the scale "weight", the token's weight (a phrase's highest) / the largest of the answer; without filters no
    weights count.

    Raises:
        InputError: an unknown scale.
    """
    if not isinstance(scale, str) or scale not in ("weight", "own"):
        raise InputError(f"scale must be 'weight' or 'own', not {scale!r}")
    if token is None or scale == "own" or not filtered:
        return 1.0
    weight, largest = float(explanation.token_weights[token].max()), float(explanation.token_weights.max())
    return weight / largest if weight else 0.0


def common_top(explanations: Sequence[Result]) -> float | None:
    """The largest weight of several answers; None where their weights do not compare: other models or settings."""
    made = [(each.metadata.get("model"), each.metadata.get("settings")) for each in explanations]
    if len(made) < 2 or any(each != made[0] for each in made) or not all(each.weighted for each in explanations):
        return None
    return max(float(each.token_weights.max()) if len(each) else 0.0 for each in explanations) or None


def weightiest(explanation: Result, max_tokens: Any) -> list[int]:
    """The tokens of the greatest weights, in the order of the answer."""
    most = positive("max_tokens", max_tokens)
    return sorted(explanation.token_weights.argsort(descending=True, stable=True)[:most].tolist())


def legend(explanation: Result, by_weight: bool) -> str:
    """What the colours of the maps mean."""
    own = "Heat: each map from its lowest value (0) to its highest (1)"
    if not explanation.weighted:
        return f"{own}."
    if not by_weight:
        return f"{own}; compare tokens by their weights, not by their colours. {_LINES}"
    largest = float(explanation.token_weights.max()) if len(explanation) else 0.0
    weighted = f"a token's map times its weight / the largest weight ({largest:.3g}), so weight 0 shows no heat."
    return f"{own};\n{weighted} {_LINES}"
