"""Each image-text-to-text type of transformers as a case: a small model, its inputs, and what an oracle expects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import calls_oracle
import cut_oracle
import oracle
import torch
import types_beyond
import types_explained
import types_mixed
import types_oracle
import types_refused
import types_zoo
import zoo
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as TYPES
from types_agree import ARRAYS

from dexar_fast import Explanation

FAMILIES = {"mistral3": "mistral3"} | {name: name for name in zoo.FAMILIES if name not in ("bakllava", "paligemma2")}
PLAIN = types_explained.EXPLAINED | types_refused.BROKEN
NO_IMAGE = {"suppress_tokens": [zoo.IMAGE, zoo.VIDEO]}


@dataclass(frozen=True)
class Case:
    """One type, ready to be explained."""

    model: Any
    inputs: dict[str, Any]
    expected: Callable[[Tensor], dict[str, Tensor]]  # from the answer's ids [T] to the arrays
    generate: dict[str, Any] = field(default_factory=dict)  # further arguments


def known() -> set[str]:
    """The types that a case is made for, or that a test refuses."""
    made = {
        *FAMILIES,
        *PLAIN,
        *types_mixed.MIXED,
        *(name.split("/")[0] for name in types_beyond.BEYOND),
    }
    return made & TYPES.keys()


def case(model_type: str) -> Case:
    """Raises KeyError for a type that none is made for."""
    if model_type in FAMILIES:
        model, inputs = zoo.build(FAMILIES[model_type])
        return Case(model, inputs, lambda ids: oracle.oracle(model, inputs, ids))
    if model_type in PLAIN:
        model, inputs = types_zoo.build(model_type, PLAIN[model_type])
        return Case(model, inputs, lambda ids: types_oracle.expected(model, inputs, ids), NO_IMAGE)
    if model_type in types_mixed.MIXED:
        model, inputs = types_zoo.build(model_type, types_mixed.MIXED[model_type])
        return Case(model, inputs, lambda ids: cut_oracle.expected(model, inputs, ids), NO_IMAGE)
    beyond = next(make for name, make in types_beyond.BEYOND.items() if name.split("/")[0] == model_type)()
    return Case(beyond.model, beyond.inputs, lambda ids: calls_oracle.expected(beyond, ids))


def error(found: Explanation, expected: dict[str, Tensor]) -> float:
    """The largest difference of any array over the largest value of that array; of weights, over that of the scores."""
    worst = 0.0
    for name in ARRAYS:
        difference = (getattr(found, name).double() - expected[name]).abs().max()
        scale = expected["text_scores" if name.endswith("weights") else name].abs().max()
        scale = torch.maximum(scale, expected["visual_scores"].abs().max()) if name.endswith("weights") else scale
        worst = max(worst, float(difference / scale) if difference > 0 else 0.0)
    return worst
