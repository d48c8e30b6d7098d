"""Inputs without the kinds of tokens: transformers numbers an image's tokens like words, and says nothing."""

from __future__ import annotations

import pytest
import torch
import zoo

from dexar_fast import Explainer, InputError
from dexar_fast.prompt.positions import TYPES, WITHOUT_TYPES


def without_types(inputs: zoo.Inputs) -> zoo.Inputs:
    return {name: value for name, value in inputs.items() if name != TYPES}


def test_inputs_without_the_kinds_of_tokens_are_warned_of() -> None:
    model, inputs = zoo.build("qwen2_5_vl")
    explainer = Explainer(model)
    answer = [11, 12]
    assert WITHOUT_TYPES not in explainer.explain_inputs(inputs, answer).diagnostics["warnings"]
    found = explainer.explain_inputs(without_types(inputs), answer)
    assert WITHOUT_TYPES in found.diagnostics["warnings"]


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_no_family_takes_inputs_without_them_in_silence(family: str) -> None:
    """transformers itself refuses them for some families, by release; else the explanation warns."""
    model, inputs = zoo.build(family)
    try:
        found = Explainer(model).explain_inputs(without_types(inputs), [11, 12])
    except InputError as error:
        assert TYPES in str(error)
    else:
        assert WITHOUT_TYPES in found.diagnostics["warnings"]


def test_a_model_that_counts_in_one_axis_needs_none() -> None:
    model, inputs = zoo.build("llava")
    assert TYPES not in inputs
    assert WITHOUT_TYPES not in Explainer(model).explain_inputs(inputs, torch.tensor([11])).diagnostics["warnings"]
