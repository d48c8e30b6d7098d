"""A model is compared with itself: under our attention and cache it must compute what it computes under its own."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import zoo
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from dexar_fast import Explainer
from dexar_fast.errors import ModelError
from dexar_fast.model import attention
from dexar_fast.model.agreement import relative_difference
from dexar_fast.model.cache import to_forward, to_generate, whole_cache

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
    with pytest.raises(ModelError, match=rf"decoder layer {layer} .LlamaDecoderLayer. no longer attends through"):
        warm.explain_inputs(inputs, **options)


@pytest.mark.parametrize("name", ["sinks", "indices", "block_indices", "s_aux"])
@pytest.mark.parametrize("nested", [False, True])
def test_tensors_that_our_attention_does_not_know_are_refused_by_name(name: str, nested: bool) -> None:
    model, inputs = zoo.build("llava")
    value: Any = torch.zeros(4)
    for layer in text_layers(model):
        layer.self_attn.register_forward_pre_hook(
            lambda _, args, kwargs: (args, kwargs | {name: (value,) if nested else value}), with_kwargs=True
        )
    with pytest.raises(ModelError, match=f"LlamaAttention gives its attention {name}"):
        Explainer(model).explain_inputs(inputs, target_ids=TARGETS)


def test_masks_that_differ_between_heads_are_refused() -> None:
    mask = torch.ones(1, 2, 3, 5, dtype=torch.bool)
    assert attention.attendable(mask, 3, 5, mask.device).all()
    mask[0, 1, 2, 0] = False
    with pytest.raises(ModelError, match="different keys"):
        attention.attendable(mask, 3, 5, mask.device)


def test_ids_that_the_model_rules_out_are_no_difference() -> None:
    lowest = torch.finfo(torch.float32).min
    own, ours = torch.tensor([1.0, -2.0, lowest, float("-inf")]), torch.tensor([1.0, -2.0, lowest, float("-inf")])
    assert relative_difference(ours, own) == 0
    ours[1] = -1.0
    assert relative_difference(ours, own) == 0.5


@pytest.mark.parametrize("layer_type", ["linear_attention", "conv", "hybrid"])
def test_a_cache_that_keeps_more_than_keys_is_refused_by_name(layer_type: str) -> None:
    model, inputs = zoo.build("llava")
    config = model.config.get_text_config()
    whole_cache(model.config)
    config.layer_types = [layer_type, *["full_attention"] * (config.num_hidden_layers - 1)]
    with pytest.raises(ModelError, match=r"LlavaConfig keeps a LinearAttention\w*Layer in its cache"):
        Explainer(model).explain_inputs(inputs, target_ids=TARGETS)


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
