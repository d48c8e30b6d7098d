"""The methods of attention against whole matrices of eager attention and plain autograd, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest
import torch
import zoo
from asked import asked, asked_of
from attention_oracle import Brute
from engine_cases import SquareTensors, long_prompt
from torch import Tensor, nn

from dexar_fast import Explainer
from dexar_fast.attribution.rows import probabilities
from dexar_fast.errors import InputError, ModelError, OutOfMemoryError
from dexar_fast.methods.attention.gradient import AttentionGradient
from dexar_fast.methods.attention.raw import Attention
from dexar_fast.methods.attention.relevancy import Relevancy
from dexar_fast.methods.attention.rollout import Rollout
from dexar_fast.methods.base import Method
from dexar_fast.methods.dex_ar import DexAr

# Windows, soft caps, grouped heads, M-RoPE, prompts that read ahead, experts
FAMILIES = ["llava", "bakllava", "qwen2_5_vl", "qwen3_vl_moe", "internvl", "paligemma2", "gemma3", "aya_vision"]
METHODS: list[tuple[Method, Callable[[Brute], Tensor]]] = [
    (Attention(), lambda brute: brute.attention(brute.layers[-1:])),
    (Attention(layers=None), lambda brute: brute.attention(brute.layers)),
    (Attention(layers=(0, -2)), lambda brute: brute.attention([0, brute.layers[-2]])),
    (Rollout(), Brute.rollout),
    (Relevancy(), Brute.relevancy),
    (AttentionGradient(), lambda brute: brute.of_lens(brute.layers)),
    (AttentionGradient(layers=(1,)), lambda brute: brute.of_lens([1])),
    (AttentionGradient(of="final"), lambda brute: brute.of_final(brute.layers)),
    (AttentionGradient(of="final", layers=(0, -1)), lambda brute: brute.of_final([0, brute.layers[-1]])),
]
ALL = [Attention(), Rollout(), Relevancy(), AttentionGradient(), AttentionGradient(of="final")]


def assert_close(found: Tensor, wanted: Tensor, error: float) -> None:
    """To a share of the largest value."""
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=error * float(wanted.max()))


@pytest.mark.parametrize(
    ("family", "tokens"), [*((family, 5) for family in FAMILIES), ("llava", 1), ("paligemma2", 1), ("gemma3", 2)]
)
def test_maps_are_those_of_whole_matrices(family: str, tokens: int) -> None:
    with asked_of(family, tokens) as request:
        brute = Brute(request)
        for method, by_brute_force in METHODS:
            found, wanted = method.maps(request), by_brute_force(brute)
            assert found.token_maps.dtype == torch.float64
            assert tokens < 5 or float(wanted.max()) > 0
            assert_close(found.token_maps, wanted, 1e-12)
            assert_close(found.sequence_map, wanted.sum(0), 1e-12)
            assert found.cells == request.grids and found.token_weights is None


def ending_with_image(family: str) -> tuple[Any, zoo.Inputs]:
    model, inputs = zoo.build(family)
    end, shape = int((inputs["input_ids"][0] == zoo.IMAGE).nonzero().max()) + 1, inputs["input_ids"].shape
    return model, {name: value[:, :end] if value.shape == shape else value for name, value in inputs.items()}


def test_a_prompt_may_end_with_its_image() -> None:
    with asked(*ending_with_image("llava"), torch.tensor([20, 31, 44])) as request:
        brute = Brute(request)
        for method, by_brute_force in METHODS:
            assert_close(method.maps(request).token_maps, by_brute_force(brute), 1e-12)


def test_positions_count_on_from_an_image_one_by_one() -> None:
    """As in generate(), and unlike in one forward of prompt and answer. The last layer's lens is the model's logit."""
    with asked(*ending_with_image("qwen2_5_vl"), torch.tensor([20, 31, 44])) as request:
        by_pass, by_graph = (AttentionGradient(of, (-1,)).maps(request).token_maps for of in ("lens", "final"))
        assert bool((by_pass.amax(1) > 0).all())
        assert_close(by_graph, by_pass, 1e-12)
        in_one_forward = Brute(request).of_final([2])
    assert_close(by_graph[:1], in_one_forward[:1], 1e-12)
    assert not torch.allclose(by_graph[1:], in_one_forward[1:], rtol=1e-3)


def test_an_answer_may_be_as_long_as_its_prompt() -> None:
    """Over the keys of a prompt that reads ahead, and so ran by itself."""
    with asked_of("paligemma", 1) as request:
        prompt = request.inputs["input_ids"].shape[1]
    with asked_of("paligemma", prompt + 1) as request:
        assert_close(Attention().maps(request).token_maps, Brute(request).attention([2]), 1e-12)


@pytest.mark.parametrize("method", ALL, ids=str)
@pytest.mark.parametrize("family", ["llava", "gemma3", "paligemma2"])
def test_blocks_of_rows_change_nothing(family: str, method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    with asked_of(family, 7) as request:
        whole = method.maps(request)
        monkeypatch.setattr(probabilities, "BLOCK_BYTES", 3 * 8 * zoo.HEADS * 40)
        assert_close(method.maps(request).token_maps, whole.token_maps, 1e-12)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_raw_attention_is_what_transformers_gives(family: str) -> None:
    """Its eager attention takes the softmax in float32."""
    with asked_of(family, 3) as request:
        found = Attention(layers=None).maps(request)
    model, first = request.model, request.inputs["input_ids"].shape[1] - 1
    model.set_attn_implementation("eager")
    full = oracle.full_sequence(model, dict(request.inputs), request.targets[:-1])
    with torch.no_grad():
        attentions = model(**full, output_attentions=True).attentions
    rows = torch.stack(attentions)[:, 0, :, first:].mean((0, 1))
    assert_close(found.token_maps, rows[:, request.visual].double(), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ALL, ids=str)
def test_other_dtypes_give_float32(method: Method, dtype: torch.dtype) -> None:
    with asked_of("llava", 5) as request:
        wanted = method.maps(request).token_maps
    with asked_of("llava", 5, dtype=dtype) as request:
        found = method.maps(request).token_maps
    assert found.dtype == torch.float32
    assert_close(found, wanted, 1e-4 if dtype == torch.float32 else 0.25)


@pytest.mark.parametrize("method", ALL, ids=str)
def test_a_known_model_runs_each_query_once(method: Method) -> None:
    """Prompt and answer in one forward, the gradient of the lens among them once its tails have agreed."""
    with asked_of("llava", 5, dtype=torch.float32) as request:
        first = method.maps(request)
        seen: list[int] = []
        layer = request.decoder.layers[0]
        hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
        again = method.maps(request)
        hook.remove()
    assert seen == [request.inputs["input_ids"].shape[1] + 4]
    assert_close(again.token_maps, first.token_maps.double(), 1e-5)


@pytest.mark.parametrize("method", [Attention(), Rollout(), AttentionGradient()], ids=str)
def test_no_tensor_has_two_sequence_axes(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probabilities, "BLOCK_BYTES", 2**16)
    model, inputs = zoo.build("llava", torch.float32)
    inputs = long_prompt(inputs, 220)
    prompt, targets = inputs["input_ids"].shape[1], torch.tensor([20, 31, 44, 17, 25])
    with asked(model, inputs, targets) as request, SquareTensors(range(prompt - 1, prompt + 6)) as squares:
        method.maps(request)
    assert squares.found == []


def state(model: nn.Module) -> list[Any]:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    return [hooks, [weight.requires_grad for weight in model.parameters()], torch.is_grad_enabled()]


@pytest.mark.parametrize("method", ALL, ids=str)
def test_the_model_is_left_as_it_was(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    with asked_of("llava", 3) as request:
        next(request.model.parameters()).requires_grad_(False)
        before = state(request.model)
        method.maps(request)
        assert state(request.model) == before
        monkeypatch.setattr(request.decoder.layers[1].mlp, "forward", failing)
        with pytest.raises(OutOfMemoryError, match=r"fit.*12\.50 GiB"):
            method.maps(request)
        assert state(request.model) == before


def failing(x: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.50 GiB. GPU 0 has ...")


@pytest.mark.parametrize("method", [Rollout(), Relevancy(), AttentionGradient(of="final")], ids=str)
def test_layers_that_keep_no_keys_are_named(method: Method) -> None:
    with asked_of("llava", 3) as request:
        request.model.config.text_config.layer_types = ["linear_attention", "full_attention", "full_attention"]
        with pytest.raises(ModelError, match="LinearAttentionLayer"):
            method.maps(request)


@pytest.mark.parametrize("method", ALL, ids=str)
def test_layers_that_attend_elsewhere_are_named(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    with asked_of("llava", 3) as request:
        last = request.decoder.attentions[-1]
        monkeypatch.setattr(last, "forward", lambda hidden_states, **_: (0.1 * hidden_states, None))
        with pytest.raises(ModelError, match=r"layer 2 \(LlamaDecoderLayer\) no longer attends"):
            method.maps(request)


@pytest.mark.parametrize("method", [Attention(), Rollout(), Relevancy(), AttentionGradient(of="final")], ids=str)
def test_a_model_that_begins_to_read_ahead_is_noticed(method: Method) -> None:
    """Then the answer does not run along with its prompt, which would read it."""
    with asked_of("llava", 3) as request:
        assert request.decoder.causal
        for attention in request.decoder.attentions:
            attention.is_causal = False
        request.model.config.text_config.is_causal = False
        with pytest.raises(ModelError, match="begun to read"):
            method.maps(request)
        assert bool(method.maps(request).token_maps.isfinite().all()) and not request.decoder.causal


@pytest.mark.parametrize("method", [Relevancy(), AttentionGradient(of="final")], ids=str)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_layers_without_a_gradient_are_named(method: Method, layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with asked_of("llava", 3) as request:
        module = request.decoder.layers[layer]
        monkeypatch.setattr(module, "forward", torch.no_grad()(module.forward))
        with pytest.raises(ModelError, match="no gradient"):
            method.maps(request)


def test_the_gradient_through_a_users_constant_is_zero() -> None:
    with asked_of("llava", 3) as request:
        constant = 0.1 * torch.ones(zoo.HIDDEN, dtype=torch.float64)
        hook = request.decoder.layers[1].register_forward_hook(lambda module, args, output: constant.expand_as(output))
        below, above = (AttentionGradient("final", layers).maps(request).token_maps for layers in ((0, 1), (2,)))
        relevancy = Relevancy().maps(request).token_maps
        hook.remove()
    assert bool((below == 0).all()) and float(above.max()) > 0
    assert bool(relevancy.isfinite().all()) and float(relevancy.max()) > 0


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda: Attention(layers=()), "layers is empty"),
        (lambda: Attention(layers=("first",)), "number the layers"),  # type: ignore[arg-type]
        (lambda: Attention(layers=(True,)), r"layers \(True,\): number the layers"),
        (lambda: AttentionGradient(layers=0), "layers 0: number the layers"),  # type: ignore[arg-type]
        (lambda: AttentionGradient(layers=()), "layers is empty"),
        (lambda: AttentionGradient(of="output"), "'output' is none of 'lens', 'final'"),  # type: ignore[arg-type]
    ],
)
def test_unknown_knobs_are_refused(method: Callable[[], Method], message: str) -> None:
    with pytest.raises(InputError, match=message):
        method()


@pytest.mark.parametrize("method", [Attention(layers=(3,)), AttentionGradient(layers=(-4,))], ids=str)
def test_layers_that_the_model_lacks_are_refused(method: Method) -> None:
    with asked_of("llava", 3) as request, pytest.raises(InputError, match="the model has at most 3 layers"):
        method.maps(request)


@pytest.mark.parametrize("kind", [Attention, AttentionGradient, DexAr])
def test_layers_are_kept_as_numbers_however_they_come(kind: Any) -> None:
    """A generator can be read once, and arrays neither compared nor hashed."""
    for given in ([0, -1], np.array([0, -1]), torch.tensor([0, -1]), iter((0, -1)), (np.int64(0), -1)):
        method = kind(layers=given)
        assert method.layers == (0, -1) and all(type(layer) is int for layer in method.layers)
        assert method == kind(layers=(0, -1)) and hash(method) == hash(kind(layers=(0, -1)))


BEYOND = [
    *(f"{name}:layers=[{layer}]" for name in ("attention", "attention-gradient", "dex-ar") for layer in (3, -4)),
    "dex-ar:layer_index=3",
]


@pytest.mark.parametrize("method", BEYOND)
def test_layers_that_no_model_of_its_config_has_are_refused_before_it_is_asked(method: str) -> None:
    model, _ = zoo.build("llava")
    with pytest.raises(InputError, match="out of range: the model has at most 3 layers that hold attention"):
        Explainer(model, method=method)
    with pytest.raises(InputError, match="out of range: the model has at most 3 layers"):
        Explainer(model).with_method(method)
    assert Explainer(model, method=method.replace("3", "2").replace("-4", "-3")).method.name in method


def test_a_config_that_counts_no_layers_refuses_none() -> None:
    model, _ = zoo.build("llava")
    del model.config.text_config.num_hidden_layers
    assert Explainer(model, method="attention:layers=[7]").method.layers == (7,)
