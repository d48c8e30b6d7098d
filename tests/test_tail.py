"""The layer tail without autograd: which blocks it takes, that it equals autograd, and when it is not trusted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from dexar_fast import Explainer, backends, engine, tail
from dexar_fast.explanation import Explanation

TARGETS = [20, 30, 40, 50]
ARRAYS = ("visual_scores", "text_scores", "token_maps", "unfiltered_token_maps")
TAKEN = ["llava", "qwen2_5_vl", "paligemma", "internvl"]
LEFT = ["gemma3"]


@pytest.fixture(autouse=True)
def on_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where element-wise steps round as autograd's do; the kernels have tests of their own (test_tail_kernels.py)."""
    monkeypatch.setenv(backends.ENVIRONMENT, "torch")


@pytest.fixture(params=["torch", "cpp"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every step, in turn."""
    monkeypatch.setenv(backends.ENVIRONMENT, request.param)


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


@pytest.mark.usefixtures("backend")
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


@pytest.mark.usefixtures("backend")
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


def trusted(model: Any, inputs: Any) -> Explainer:
    """Has seen that every tail agrees."""
    explainer = Explainer(model)
    explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert explainer.decoder is not None
    assert len(explainer.decoder.trusted_tails) == len(explainer.decoder.layers)
    return explainer


def test_a_hook_with_a_state_is_not_trusted() -> None:
    """It may do nothing while the tail is judged, and something afterwards."""
    model, inputs = zoo.build("llava", torch.float32)
    factor = [1.0]
    last_layer(model).mlp.register_forward_hook(lambda module, args, output: output * factor[0])
    explainer = Explainer(model)
    explainer.explain_inputs(inputs, target_ids=TARGETS)
    factor[0] = 2.0
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs), 1e-6)


def test_a_hook_on_the_final_norm_is_not_overlooked() -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explainer = trusted(model, inputs)
    model.model.language_model.norm.register_forward_hook(lambda module, args, output: output.tanh())
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs), 1e-6)


class Scaled(nn.Module):
    """An MLP that looks like the common one."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj, self.act_fn = (
            mlp.gate_proj,
            mlp.up_proj,
            mlp.down_proj,
            mlp.act_fn,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


@pytest.mark.parametrize("how", ["replaced", "forward", "class"])
def test_what_a_module_does_may_change_once_it_is_trusted(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explainer = trusted(model, inputs)
    mlp = last_layer(model).mlp
    if how == "replaced":
        last_layer(model).mlp = Scaled(mlp)
    elif how == "forward":
        mlp.forward = Scaled(mlp).forward
    else:
        monkeypatch.setattr(type(mlp), "forward", Scaled.forward)
    found = explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert_same(found, by_autograd(model, inputs), 1e-6)


def test_weights_are_read_as_they_are() -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explainer = trusted(model, inputs)
    with torch.no_grad():
        last_layer(model).mlp.down_proj.weight.mul_(2)
        last_layer(model).self_attn.o_proj.weight.copy_(last_layer(model).self_attn.q_proj.weight)
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs), 1e-5)


@pytest.mark.parametrize("state", ["train", "checkpointing"])
def test_flags_of_training_change_nothing(state: str, recorded: list[int]) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explainer = trusted(model, inputs)
    expected = explainer.explain_inputs(inputs, target_ids=TARGETS)
    model.train()
    if state == "checkpointing":
        model.gradient_checkpointing_enable()
    recorded.clear()
    assert torch.equal(explainer.explain_inputs(inputs, target_ids=TARGETS).token_maps, expected.token_maps)
    assert not recorded


@pytest.mark.parametrize("family", ["granite", "cohere", "qwen3", "olmo2", "phi3"])
def test_other_text_models_agree_with_autograd_or_are_left_to_it(family: str) -> None:
    """Granite multiplies its residuals and divides its logits, Cohere scales them, Qwen3 has norms in its attention."""
    knobs = {"granite": {"residual_multiplier": 0.4, "logits_scaling": 3.0}, "cohere": {"logit_scale": 0.3}}
    config = LlavaConfig(
        text_config={**zoo.TEXT, "model_type": family, **knobs.get(family, {})},
        vision_config=zoo.CLIP,
        image_token_index=zoo.IMAGE,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + (parameter.ndim == 1))
    _, inputs = zoo.build("llava", torch.float32)
    expected = by_autograd(model, inputs)
    explainer = Explainer(model)
    for _ in range(2):
        assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, 1e-5)
    assert explainer.decoder is not None
    assert bool(explainer.decoder.trusted_tails) == (family == "qwen3")


def test_no_gradient_at_all_says_nothing_of_a_tail() -> None:
    """The head's row of a padding token is often 0, and with it every gradient."""
    zero = torch.zeros(2, 3)
    assert not tail.agrees(zero, zero)
    model, inputs = zoo.build("llava", torch.float32)
    with torch.no_grad():
        model.lm_head.weight[zoo.PAD] = 0
    explainer = Explainer(model)
    explainer.explain_inputs(inputs, target_ids=[zoo.PAD])
    assert explainer.decoder is not None
    assert not explainer.decoder.trusted_tails


class Wrapped(torch.Tensor):
    """As libraries that quantise leave nn.Linear and change its weight."""


def test_weights_of_another_kind_are_left_alone() -> None:
    linear = nn.Linear(2, 2)
    assert tail.is_plain(linear)
    linear.weight = nn.Parameter(linear.weight.detach().as_subclass(Wrapped))
    assert not tail.is_plain(linear)
    assert not tail.is_plain(None)
