"""A model is compared with itself: under our attention and cache it must compute what it computes under its own."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import zoo
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from dexar_fast import Explainer
from dexar_fast.attribution.rows.probabilities import probabilities
from dexar_fast.errors import ModelError
from dexar_fast.model import attention
from dexar_fast.model.agreement import relative_difference
from dexar_fast.model.cache import goes_back, to_forward, to_generate, whole_cache

TARGETS = torch.tensor([20, 31, 44])


def text_layers(model: Any) -> nn.ModuleList:
    return model.model.language_model.layers


def rename_test(model: Any, names: tuple[str, ...]) -> None:
    """Some families build their mask for certain names of the attention alone: here every second key is hidden."""
    config = model.config.get_text_config()

    def hide(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if config._attn_implementation not in names:
            return None
        keys = kwargs["hidden_states"].shape[1]
        mask = torch.ones(keys, keys, dtype=torch.bool).tril()
        mask[:, 1::2] &= torch.eye(keys, dtype=torch.bool)[:, 1::2]
        return args, kwargs | {"attention_mask": mask[None, None]}

    for layer in text_layers(model):
        layer.self_attn.register_forward_pre_hook(hide, with_kwargs=True)


@pytest.mark.parametrize("own", ["sdpa", "eager"])
@pytest.mark.parametrize("options", [{"target_ids": TARGETS}, {"max_new_tokens": 3}])
def test_a_mask_for_certain_names_alone_is_refused_by_class(own: str, options: dict[str, Any]) -> None:
    model, inputs = zoo.build("llava")
    model.set_attn_implementation({"text_config": own})
    Explainer(model).explain_inputs(inputs, **options)
    other, _ = zoo.build("llava")
    other.set_attn_implementation({"text_config": own})
    rename_test(other, ("sdpa",))  # a bool mask is what SDPA takes
    explainer = Explainer(other)
    for _ in range(2) if own == "sdpa" else ():
        with pytest.raises(ModelError, match="LlavaForConditionalGeneration computes something else"):
            explainer.explain_inputs(inputs, **options)
    assert other.config.get_text_config()._attn_implementation == own


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("own", ["sdpa", "eager"])
def test_rounding_is_no_difference(dtype: torch.dtype, own: str) -> None:
    for family in ("llava", "qwen2_5_vl", "gemma3"):
        model, inputs = zoo.build(family, dtype)
        model.set_attn_implementation({"text_config": own})
        inputs = {n: x.to(dtype) if x.is_floating_point() else x for n, x in inputs.items()}
        assert len(Explainer(model).explain_inputs(inputs, target_ids=TARGETS)) == 3


def test_a_prompt_twice_as_long_is_compared_again() -> None:
    """A window or an index budget shows no difference before it is full."""
    model, inputs = zoo.build("llava")
    explainer = Explainer(model)
    explainer.explain_inputs(inputs, target_ids=TARGETS)
    config, length = model.config.get_text_config(), inputs["input_ids"].shape[1]

    def window(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        keys = kwargs["hidden_states"].shape[1]
        if config._attn_implementation == attention.NAME or keys <= 2 * length:
            return None
        mask = torch.ones(keys, keys, dtype=torch.bool).tril().triu(-2 * length)
        return args, kwargs | {"attention_mask": mask[None, None]}

    for layer in text_layers(model):
        layer.self_attn.register_forward_pre_hook(window, with_kwargs=True)

    def with_text(tokens: int) -> dict[str, Any]:
        more = torch.full((1, tokens), 33)
        ids = torch.cat([inputs["input_ids"], more], 1)
        return inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    explainer.explain_inputs(with_text(length - 1), target_ids=TARGETS)
    with pytest.raises(ModelError, match="computes something else"):
        explainer.explain_inputs(with_text(3 * length), target_ids=TARGETS)


def attends_by_hand(module: Any) -> None:
    """As code that a user puts in the place of a layer's attention."""

    def forward(hidden_states: Any, position_embeddings: Any, cache: Any = None, **others: Any) -> Any:
        held = cache if cache is not None else others["past_key_values"]
        query, key, value = (
            project(hidden_states).unflatten(-1, (-1, module.head_dim)).transpose(1, 2)
            for project in (module.q_proj, module.k_proj, module.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        key, value = held.update(key, value, module.layer_idx)
        seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(key.shape[2] - query.shape[2])
        made = nn.functional.scaled_dot_product_attention(query, key, value, seen, enable_gqa=True)
        return module.o_proj(made.transpose(1, 2).flatten(2)), None

    module.forward = forward


@pytest.mark.parametrize("options", [{"target_ids": TARGETS}, {"max_new_tokens": 3}])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_that_attends_by_itself_is_not_left_out(layer: int, options: dict[str, Any]) -> None:
    model, inputs = zoo.build("llava")
    warm = Explainer(model)
    warm.explain_inputs(inputs, **options)
    attends_by_hand(text_layers(model)[layer].self_attn)
    with pytest.raises(ModelError, match=r"1 of the 3 layers with keys of Llava.* attend by themselves, not through"):
        Explainer(model).explain_inputs(inputs, **options)
    with pytest.raises(ModelError, match=rf"decoder layer {layer} .LlamaDecoderLayer. no longer attends where it did"):
        warm.explain_inputs(inputs, **options)


def giving(model: Any, **more: Any) -> Any:
    """The model, whose layers give their attention something more."""
    for layer in text_layers(model):
        layer.self_attn.register_forward_pre_hook(lambda _, args, own: (args, own | more), with_kwargs=True)
    return model


@pytest.mark.parametrize(
    "more",
    [
        {"scales": torch.zeros(4)},
        {"sinks": (torch.zeros(4),)},
        {"s_aux": [torch.zeros(4)]},
        {"indices": torch.zeros(4, dtype=torch.int32)},  # no mask holds them
        {"block_indices": torch.zeros(1, 4, 3, 2)},
    ],
    ids=str,
)
def test_tensors_that_our_attention_does_not_know_are_refused_by_name(more: dict[str, Any]) -> None:
    model, inputs = zoo.build("llava")
    with pytest.raises(ModelError, match=f"LlamaAttention gives its attention {next(iter(more))}"):
        Explainer(giving(model, **more)).explain_inputs(inputs, target_ids=TARGETS)


@pytest.mark.parametrize("name", attention.SINKS)
def test_sinks_that_the_models_own_attention_does_not_apply_are_noticed(name: str) -> None:
    model, inputs = zoo.build("llava")
    with pytest.raises(ModelError, match="computes something else"):
        Explainer(giving(model, **{name: torch.ones(4)})).explain_inputs(inputs, target_ids=TARGETS)


def test_our_name_is_found_and_equals_eager() -> None:
    config = zoo.build("llava")[0].config.get_text_config()
    config._attn_implementation = attention.AS_EAGER
    assert config._attn_implementation in ("eager", "sdpa")
    assert config._attn_implementation == attention.NAME
    assert ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, None) is attention.attention
    assert attention.AS_EAGER not in ("sdpa", "flash_attention_2")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("of_rows", [False, True])
@pytest.mark.parametrize("kind", ["none", "all", "allowed", "added"])
def test_attention_with_sinks_is_a_softmax_with_one_more_column(
    kind: str, of_rows: bool, cap: float | None, bias: bool
) -> None:
    torch.manual_seed(0)
    queries, keys = attention.BLOCK + 3, attention.BLOCK + 9  # more than one block
    query, key, value = (torch.randn(1, h, n, d).double() for h, n, d in ((4, queries, 8), (2, keys, 8), (2, keys, 5)))
    sinks = torch.randn(1, 4, queries if of_rows else 1, 1).double()
    added = torch.randn(1, 4, queries, keys).double() if bias else None
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    if kind in ("allowed", "added"):
        seen &= torch.rand(queries, keys) < 0.7
    mask = {"allowed": seen[None, None], "added": torch.zeros(1, 1, queries, keys).double().masked_fill(~seen, -1e300)}
    call = attention.Call(
        query, key, value, mask.get(kind), causal=kind != "all", scaling=0.3, softcap=cap, bias=added, sinks=sinks
    )
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key.repeat_interleave(2, 1)) * 0.3
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    scores = scores if added is None else scores + added
    weights = scores.exp() if kind == "all" else scores.exp() * seen
    weights = weights / (weights.sum(-1, keepdim=True) + sinks.exp())
    expected = (weights @ value.repeat_interleave(2, 1)).transpose(1, 2)
    torch.testing.assert_close(attention.in_blocks(call), expected, rtol=0, atol=1e-12)
    rows = slice(attention.BLOCK - 1, queries)
    torch.testing.assert_close(probabilities(call, rows), weights[0, :, rows], rtol=0, atol=1e-12)


def test_ids_that_the_model_rules_out_are_no_difference() -> None:
    lowest = torch.finfo(torch.float32).min
    own, ours = torch.tensor([1.0, -2.0, lowest, float("-inf")]), torch.tensor([1.0, -2.0, lowest, float("-inf")])
    assert relative_difference(ours, own) == 0
    ours[1] = -1.0
    assert relative_difference(ours, own) == 0.5


@pytest.mark.parametrize("cap", [None, 3.0])
def test_a_query_that_reads_no_key_is_no_nan(cap: float | None) -> None:
    """As those of padding on the left: what behind them reads their values, with weight 0, would be NaN, too."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 5, 4) for _ in range(3))
    seen = torch.ones(5, 5, dtype=torch.bool).tril()[None, None].clone()
    seen[..., 0] = False  # the first query reads nothing
    call = attention.Call(query, key, value, seen, causal=False, scaling=0.5, softcap=cap, bias=None, sinks=None)
    found = attention.in_blocks(call)
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * 0.5
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    weights = scores.masked_fill(~seen, -torch.inf)[:, :, 1:].softmax(-1)
    assert found.isfinite().all()
    torch.testing.assert_close(found[:, 1:], (weights @ value).transpose(1, 2))


def test_nan_of_ours_alone_is_no_rounding() -> None:
    own = torch.tensor([1.0, -2.0, float("nan")])
    assert relative_difference(own.clone(), own) == 0
    assert relative_difference(torch.tensor([1.0, float("nan"), 0.0]), own) == float("inf")


@pytest.mark.parametrize("layer_type", ["linear_attention", "conv", "hybrid"])
def test_a_cache_that_keeps_more_than_keys_is_named(layer_type: str) -> None:
    model, _ = zoo.build("llava")
    config = model.config.get_text_config()
    assert goes_back(model.config)
    config.layer_types = [layer_type, *["full_attention"] * (config.num_hidden_layers - 1)]
    assert not goes_back(model.config)
    with pytest.raises(ModelError, match=r"LlavaConfig keeps a LinearAttention\w*Layer in its cache"):
        whole_cache(model.config)


def test_layers_with_a_window_keep_every_key() -> None:
    model, _ = zoo.build("gemma3")
    assert {type(layer).__name__ for layer in whole_cache(model.config).layers} == {"DynamicLayer"}


def test_the_cache_has_the_name_that_the_forward_takes() -> None:
    model, _ = zoo.build("llava")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        cache = whole_cache(model.config)
        model(input_ids=torch.tensor([[5, 6]]), **to_forward(model, cache))
        model.generate(torch.tensor([[5, 6, 7]]), **to_generate(cache), max_new_tokens=1)
    assert cache.get_seq_length() == 3


def test_explaining_warns_of_nothing_that_will_go() -> None:
    model, inputs = zoo.build("llava")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        Explainer(model).explain_inputs(inputs, max_new_tokens=3)
