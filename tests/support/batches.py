"""Requests for a batch, and what is asked of their explanations."""

from __future__ import annotations

from typing import Any

import zoo
from alike import assert_same
from engine_cases import long_prompt

from dexar_fast import Explainer, Explanation

ANSWERS = [[30, 41, 52], [33], [28, 60, 35, 44, 51]]
KNOBS: list[dict[str, Any]] = [
    {"mode": "official"},
    {"text_relevance": True},
    {"text_set": "generated", "layers": [0, 2]},
    {"head_score": ("topk", 3), "sequence_norm": "token"},
    {"backend": "torch"},
]
ALL = [*zoo.FAMILIES, *zoo.VARIANTS]


def prompts(inputs: zoo.Inputs) -> list[zoo.Inputs]:
    """Three of different lengths, the first the shortest, about different pictures."""
    found = []
    for n, words in enumerate((0, 5, 2)):
        longer = long_prompt(inputs, words)
        ids = longer["input_ids"].clone()
        ids[0, -1] += n
        pictures = {name: x.roll(n, 0) * (1 - 0.2 * n) for name, x in inputs.items() if name.startswith("pixel_values")}
        found.append(longer | pictures | {"input_ids": ids})
    return found


def alone(explainer: Explainer, several: list[zoo.Inputs], answers: list[Any]) -> list[Explanation]:
    return [explainer.explain_inputs(each, answer) for each, answer in zip(several, answers, strict=True)]


def batched(
    explainer: Explainer, several: list[zoo.Inputs], answers: list[Any] | None = None, **kwargs: Any
) -> list[Any]:
    return explainer.explain_batch_inputs(list(zip(several, answers or [None] * len(several), strict=True)), **kwargs)


def assert_equal(found: list[Any], expected: list[Explanation], error: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Explanation), one
        assert_same(one, other, error)


def said(found: list[Any], name: str) -> list[Any]:
    return [each.metadata.get(name) for each in found]
