"""What hiding a part of the pictures changes in the probability of each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import InputError
from dexar_fast.evaluation.asking import answered
from dexar_fast.evaluation.hiding import probabilities
from dexar_fast.evaluation.places import Places
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.generation.asked import Asked
from dexar_fast.metrics.hiding.ordering import first, order
from dexar_fast.metrics.maps import Mask
from dexar_fast.serve.uploads import painted

FILL = "blur"
TOP = 0.1  # the share of the pictures that the hottest part takes


def changes(explainer: Explainer, explanation: Explanation, masks: Sequence[Mask | None] | None) -> dict[str, Any]:
    """For each token its text and its probability before and after, in [0, 1]; for each picture what was hidden.

    Args:
        masks: for each picture what to hide, or None; None instead of all: the hottest tenth of the answer's map.
    Raises:
        InputError: nothing is to be hidden, or a picture that cannot be hidden (`evaluation.asking.answered`).
    """
    with answered(explainer, explanation) as asked:
        nothing = [np.zeros((1, 1), bool)] * len(explanation.images)
        hidden = _hottest(explanation, asked) if masks is None else _painted(masks, nothing)
        before, after = probabilities(asked, [nothing, hidden], FILL)
    shown = {"masks": [painted(mask) for mask in hidden], "painted": [bool(mask.any()) for mask in hidden]}
    return {"tokens": _rows(explanation.tokens, before, after)} | shown


def _rows(tokens: list[str], before: NDArray[np.float64], after: NDArray[np.float64]) -> list[dict[str, Any]]:
    found = zip(tokens, before.tolist(), after.tolist(), strict=True)
    return [{"text": text, "before": round(was, 4), "after": round(now, 4)} for text, was, now in found]


def _painted(masks: Sequence[Mask | None], nothing: Sequence[Mask]) -> list[Mask]:
    if len(masks) != len(nothing) or not any(mask is not None and mask.any() for mask in masks):
        raise InputError("nothing is painted: paint over a part of the picture first")
    return [none if mask is None else mask for mask, none in zip(masks, nothing, strict=True)]


def _hottest(explanation: Explanation, asked: Asked) -> Sequence[Mask]:
    places = Places(explanation, asked.grids)
    ranked = order(places.of(explanation.sequence_map.numpy()), 0)
    return places.masks(first(ranked, round(TOP * places.count)))
