"""The layer tail without autograd: which blocks it takes, that it equals autograd, and when it is not trusted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from torch import nn

from dexar_fast import Explainer, engine, tail
from dexar_fast.explanation import Explanation

TARGETS = [20, 30, 40, 50]
ARRAYS = ("visual_scores", "text_scores", "token_maps", "unfiltered_token_maps")
TAKEN = ["llava", "qwen2_5_vl", "paligemma", "internvl"]
LEFT = ["gemma3"]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for every layer that autograd differentiates."""
    layers: list[int] = []
    original = engine.Pass._recorded_vjp

    def counted(self: engine.Pass, *args: Any) -> torch.Tensor:
        layers.append(len(layers))
        return original(self, *args)

    monkeypatch.setattr(engine.Pass, "_recorded_vjp", counted)
    return layers


def by_autograd(model: Any, inputs: Any, **knobs: Any) -> Explanation:
    """With no block known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail.Block, "of", lambda layer, attention: None)
        return Explainer(model, **knobs).explain_inputs(inputs, target_ids=TARGETS)


def assert_same(found: Explanation, expected: Explanation, tolerance: float) -> None:
    for array in ARRAYS:
        wanted = getattr(expected, array)
        assert (getattr(found, array) - wanted).abs().max() <= tolerance * wanted.abs().max(), array


@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize("family", TAKEN)
def test_it_equals_autograd(family: str, mode: str, recorded: list[int]) -> None:
    model, inputs = zoo.build(family, torch.float32)
    expected = by_autograd(model, inputs, mode=mode, layer_index=0)
    explainer = Explainer(model, mode=mode, layer_index=0)
    recorded.clear()
    first = explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert_same(first, expected, 1e-5)
    assert len(recorded) >= expected.visual_scores.shape[1]
    recorded.clear()
    for chunk in (None, 3):
        explainer.chunk_size = chunk
        assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, 1e-5)
    assert not recorded


def test_what_was_explained_before_changes_no_bit_of_a_chunk(recorded: list[int]) -> None:
    """Without a graph or with it: the tail's own numbers are taken."""
    model, inputs = zoo.build("llava", torch.float32)
    explainer = Explainer(model, chunk_size=3)
    first = explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert recorded
    recorded.clear()
    assert torch.equal(explainer.explain_inputs(inputs, target_ids=TARGETS).token_maps, first.token_maps)
    assert not recorded


def test_the_second_chunk_is_taken_without_autograd(recorded: list[int]) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explanation = Explainer(model, chunk_size=1).explain_inputs(inputs, target_ids=TARGETS)
    assert len(recorded) == explanation.visual_scores.shape[1]


@pytest.mark.parametrize("family", LEFT)
def test_other_blocks_are_left_to_autograd(family: str, recorded: list[int]) -> None:
    model, inputs = zoo.build(family, torch.float32)
    explainer = Explainer(model)
    first, second = (explainer.explain_inputs(inputs, target_ids=TARGETS) for _ in range(2))
    assert len(recorded) == 2 * first.visual_scores.shape[1]
    assert torch.equal(first.token_maps, second.token_maps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_differs_by_its_rounding(dtype: torch.dtype, recorded: list[int]) -> None:
    model, inputs = zoo.build("llava", dtype)
    explainer = Explainer(model)
    expected = by_autograd(model, inputs)
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, 8 * torch.finfo(dtype).eps)
    recorded.clear()
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, 16 * torch.finfo(dtype).eps)
    assert not recorded


def last_layer(model: Any) -> nn.Module:
    return model.model.language_model.layers[-1]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_hook_that_changes_the_layer_is_not_overlooked(when: str) -> None:
    """Neither one that was there at first nor one that comes once the tail is trusted."""
    model, inputs = zoo.build("llava", torch.float32)
    explainer = Explainer(model)
    if when == "after":
        explainer.explain_inputs(inputs, target_ids=TARGETS)
    last_layer(model).mlp.register_forward_hook(lambda module, args, output: output * 2)
    expected = by_autograd(model, inputs)
    for _ in range(2):
        assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, 1e-6)


def test_an_altered_forward_does_not_agree(recorded: list[int]) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    mlp = last_layer(model).mlp
    forward = mlp.forward
    mlp.forward = lambda x: 1.5 * forward(x)
    explainer = Explainer(model, layers=[-1])
    first, second = (explainer.explain_inputs(inputs, target_ids=TARGETS) for _ in range(2))
    assert len(recorded) == 2
    assert torch.equal(first.token_maps, second.token_maps)


def test_gradients_that_are_not_finite_do_not_agree() -> None:
    x = torch.ones(2, 3)
    assert tail.agrees(x, x + 1e-6)
    assert not tail.agrees(x, x * 1.001)
    assert not tail.agrees(x * torch.nan, x)
    assert not tail.agrees(x * torch.nan, x * torch.nan)
    assert not tail.agrees(x.int(), x.int() + 1)
