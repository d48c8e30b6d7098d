"""The layer tail without autograd: which blocks it takes, that it equals autograd, and when it is not trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from tail_agreement import (
    TARGETS,
    assert_same,
    by_autograd,
    last_layer,
    trusted,
    trusted_layers,
    with_text_model,
)
from torch import nn
from torch.nn.modules import module as every

from dexar_fast import Explainer
from dexar_fast.attribution.calls.gradients import CallGradients
from dexar_fast.attribution.tails import modules as tail_modules
from dexar_fast.attribution.tails import trust as tail
from dexar_fast.backends import plan

LEFT = {"qwen3_vl_moe": [0, 2]}  # layers of experts; all others of every family are taken

# Of the largest score, in float32. A score is a chain of some 6 products (o_proj, gate or up, down, the head's row and
# the norms' sums, <u, V>), and hidden states are longer ones. A sum of D <= 80 products that round at random, by up to
# eps / 2 each, is off by some sqrt(D) eps / 2: 6 of them by 27 eps, twice that where both sides of a comparison round,
# and again half of it for a tail that is not normal. At worst they would be off by 6 * 80 eps.
ROUNDING = 80 * torch.finfo(torch.float32).eps


@pytest.fixture(autouse=True)
def on_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where element-wise steps round as autograd's do; the kernels have tests of their own (test_tail_kernels.py)."""
    monkeypatch.setenv(plan.ENVIRONMENT, "torch")


@pytest.fixture(params=["torch", "cpp"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every step, in turn."""
    monkeypatch.setenv(plan.ENVIRONMENT, request.param)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for every layer that autograd differentiates."""
    layers: list[int] = []
    original = CallGradients._recorded

    def counted(self: CallGradients, *args: Any) -> torch.Tensor:
        layers.append(len(layers))
        return original(self, *args)

    monkeypatch.setattr(CallGradients, "_recorded", counted)
    return layers


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_it_equals_autograd(family: str, mode: str, recorded: list[int]) -> None:
    model, inputs = zoo.build(family, torch.float32)
    expected = by_autograd(model, inputs, mode=mode, layer_index=0)
    explainer = Explainer(model, mode=mode, layer_index=0)
    recorded.clear()
    first = explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert_same(first, expected, ROUNDING)
    layers, left = expected.visual_scores.shape[1], LEFT.get(family, [])
    assert len(recorded) == layers
    assert trusted_layers(explainer) == set(range(layers)).difference(left)
    recorded.clear()
    for chunk in (4, 3):
        explainer.chunk_size = chunk
        assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, ROUNDING)
    assert len(recorded) == 3 * len(left)


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


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llava", "gemma3", "paligemma2", "aya_vision"])
def test_half_precision_differs_by_its_rounding(family: str, dtype: torch.dtype, recorded: list[int]) -> None:
    model, inputs = zoo.build(family, dtype)
    explainer = Explainer(model)
    expected = by_autograd(model, inputs)
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, 8 * torch.finfo(dtype).eps)
    recorded.clear()
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, 16 * torch.finfo(dtype).eps)
    assert not recorded


@pytest.mark.parametrize(("text", "trusted"), [("llama", False), ("starcoder2", True)])
def test_float64_wants_norms_in_float64(text: str, trusted: bool) -> None:
    """RMSNorms of transformers sum in float32: autograd's digits are kept."""
    model, inputs = with_text_model(text, torch.float64)
    expected = by_autograd(model, inputs)
    explainer = Explainer(model)
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, 1e-9)
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, 1e-9)
    assert bool(trusted_layers(explainer)) == trusted


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
        assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, ROUNDING)


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


@pytest.mark.parametrize("where", ["before", "behind"])
def test_a_hook_with_a_state_is_not_trusted(where: str) -> None:
    """It may do nothing while the tail is judged, and something afterwards."""
    model, inputs = zoo.build("llava", torch.float32)
    factor = [1.0]
    mlp = last_layer(model).mlp
    if where == "before":
        mlp.register_forward_pre_hook(lambda module, args: (args[0] * factor[0],))
    else:
        mlp.register_forward_hook(lambda module, args, output: output * factor[0])
    explainer = Explainer(model)
    explainer.explain_inputs(inputs, target_ids=TARGETS)
    factor[0] = 2.0
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs), ROUNDING)


@pytest.mark.parametrize("when", ["before", "behind", "gradient"])
def test_a_hook_on_every_module_is_not_overlooked(when: str) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explainer = trusted(model, inputs)
    mlp = last_layer(model).mlp
    hooks: dict[str, Callable[[], Any]] = {
        "before": lambda: every.register_module_forward_pre_hook(lambda m, args: (2 * args[0],) if m is mlp else None),
        "behind": lambda: every.register_module_forward_hook(lambda m, args, x: 2 * x if m is mlp else None),
        "gradient": lambda: every.register_module_full_backward_pre_hook(lambda m, g: (2 * g[0],) if m is mlp else g),
    }
    handle = hooks[when]()
    try:
        found, expected = explainer.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs)
    finally:
        handle.remove()
    assert_same(found, expected, ROUNDING)


def test_a_hook_on_the_final_norm_is_not_overlooked() -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explainer = trusted(model, inputs)
    model.model.language_model.norm.register_forward_hook(lambda module, args, output: output.tanh())
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs), ROUNDING)


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
    assert_same(found, by_autograd(model, inputs), ROUNDING)


def a_larger_epsilon(model: Any) -> None:
    last_layer(model).post_attention_layernorm.variance_epsilon = 50.0


def a_larger_final_epsilon(model: Any) -> None:
    model.model.language_model.norm.variance_epsilon = 50.0


def another_final_norm(model: Any) -> None:
    norm = model.model.language_model.norm
    forward = norm.forward
    norm.forward = lambda x: forward(x).tanh()


def another_activation(model: Any) -> None:
    last_layer(model).mlp.act_fn = nn.Tanh()


def another_hook_on_gradients(model: Any) -> None:
    last_layer(model).mlp.register_full_backward_pre_hook(lambda module, grads: tuple(3 * g for g in grads))


@pytest.mark.parametrize(
    "change",
    [
        a_larger_epsilon,
        a_larger_final_epsilon,
        another_final_norm,
        another_activation,
        another_hook_on_gradients,
    ],
)
def test_what_changes_once_a_tail_is_trusted_is_noticed(change: Callable[[Any], None]) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explainer = trusted(model, inputs)
    before = explainer.explain_inputs(inputs, target_ids=TARGETS)
    change(model)
    expected = by_autograd(model, inputs)
    for _ in range(2):
        assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, ROUNDING)
    assert (before.token_maps - expected.token_maps).abs().max() > 1e-3 * expected.token_maps.abs().max()


@pytest.mark.parametrize(("before", "after"), [(1.0, 0.4), (1, 2)])
def test_a_number_that_the_layer_reads_may_change(before: float, after: float) -> None:
    """Granite with residuals as they are looks like Llama, and agrees."""
    model, inputs = with_text_model("granite")
    for layer in model.model.language_model.layers:
        layer.residual_multiplier = before
    explainer = trusted(model, inputs)
    last_layer(model).residual_multiplier = after
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs), ROUNDING)


@pytest.mark.parametrize(("name", "layers"), [("mlp.down_proj", 1), ("self_attn.o_proj", 1), ("lm_head", 3)])
def test_weights_of_another_kind_are_no_longer_trusted(name: str, layers: int, recorded: list[int]) -> None:
    """As torchao quantises."""
    model, inputs = zoo.build("llava", torch.float32)
    explainer = trusted(model, inputs)
    recorded.clear()
    linear = model.lm_head if name == "lm_head" else last_layer(model).get_submodule(name)
    linear.weight = nn.Parameter(linear.weight.detach().as_subclass(Wrapped))
    for _ in range(2):
        explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert len(recorded) == 2 * layers


def test_a_module_that_the_forward_leaves_out_is_missed(recorded: list[int]) -> None:
    """And the layers behind it are judged by what they themselves compute."""
    model, inputs = zoo.build("llava", torch.float32)
    mlp = model.model.language_model.layers[0].mlp
    mlp.forward = lambda x: mlp.down_proj(mlp.up_proj(x))
    explainer = Explainer(model)
    expected = by_autograd(model, inputs)
    for _ in range(2):
        assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, ROUNDING)
    assert trusted_layers(explainer) == {1, 2}


@pytest.mark.parametrize("family", ["llava", "paligemma2"])
def test_weights_are_read_as_they_are(family: str) -> None:
    model, inputs = zoo.build(family, torch.float32)
    explainer = trusted(model, inputs)
    layer = last_layer(model)
    with torch.no_grad():
        layer.mlp.down_proj.weight.mul_(2)
        layer.self_attn.o_proj.weight.add_(layer.self_attn.o_proj.weight.flip(0))
        layer.post_attention_layernorm.weight.add_(torch.linspace(-1, 1, len(layer.post_attention_layernorm.weight)))
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.flip(0))
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs), ROUNDING)


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


TEXT_MODELS = {  # and whether their tails are taken
    "qwen3": True,  # norms in the attention
    "cohere": True,  # parallel
    "phi": True,  # parallel, LayerNorm, biases
    "stablelm": True,  # LayerNorm, gated MLP
    "starcoder2": True,  # LayerNorm, plain MLP, biases
    "biogpt": True,  # the MLP in the layer itself, as in OPT
    "arcee": True,  # RMSNorm, plain MLP
    "granite": False,  # multiplies its residuals
    "olmo2": False,  # norms behind attention and MLP alone
    "phi3": False,  # gate and up in one
    "glm": False,  # likewise
    "gpt_neox": False,  # parallel, two norms
    "nemotron": True,  # a LayerNorm with 1 added to its weight
}


@pytest.mark.parametrize("family", TEXT_MODELS)
def test_other_text_models_agree_with_autograd_or_are_left_to_it(family: str) -> None:
    model, inputs = with_text_model(family)
    expected = by_autograd(model, inputs)
    explainer = Explainer(model)
    for _ in range(2):
        assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, ROUNDING)
    assert explainer.decoder is not None
    assert trusted_layers(explainer) == (set(range(len(explainer.decoder.layers))) if TEXT_MODELS[family] else set())


def test_logits_may_be_capped_behind_the_head() -> None:
    """By more than the zoo's PaliGemma 2 does: the slope of each token's logit differs."""
    model, inputs = zoo.build("paligemma2", torch.float32)
    model.config.text_config.final_logit_softcapping = 20.0
    if not zoo.caps_logits(model, inputs):
        pytest.skip("PaliGemma of this transformers does not cap its logits")
    explainer = trusted(model, inputs)
    assert explainer.decoder is not None
    assert [step.args[-1] for step in explainer.decoder.lens.after if len(step.args) == 2] == [20.0, 20.0]
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs), ROUNDING)


def test_no_gradient_at_all_says_nothing_of_a_tail() -> None:
    """The head's row of a padding token is often 0, and with it every gradient."""
    zero = torch.zeros(2, 3)
    assert not tail.agrees(zero, zero)
    model, inputs = zoo.build("llava", torch.float32)
    with torch.no_grad():
        model.lm_head.weight[zoo.PAD] = 0
    explainer = Explainer(model)
    explainer.explain_inputs(inputs, target_ids=[zoo.PAD])
    assert not trusted_layers(explainer)


class Wrapped(torch.Tensor):
    """As libraries that quantise leave nn.Linear and change its weight."""


def test_weights_of_another_kind_are_left_alone() -> None:
    linear = nn.Linear(2, 2)
    assert tail_modules.is_plain(linear)
    linear.weight = nn.Parameter(linear.weight.detach().as_subclass(Wrapped))
    assert not tail_modules.is_plain(linear)
    assert not tail_modules.is_plain(None)
