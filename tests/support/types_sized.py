"""The types of types_cases at a size where time is in the matrix products: d = 512, 4 layers, 8 heads, float32."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
import types_beyond
import types_cases
import types_explained
import types_mixed
import types_zoo
import zoo
from torch import Tensor

WIDTH, PROMPT = 512, 620
POSITIONS = 2048
WORDS = range(10, types_explained.IMAGE_CODES[0])  # ids that every type can write: chameleon writes no codes of images
PICTURES: dict[str, Callable[[], types_beyond.Beyond]] = {  # prompts that are an image alone, of 620, 144 and 626 keys
    "pix2struct": lambda: types_beyond.pix2struct(20, 31, padding=0),
    "pp_formulanet": lambda: types_beyond.pp_formulanet(side=192),
    "vision-encoder-decoder": lambda: types_beyond.vision_encoder_decoder("bert", side=100),
}
TIMES = {  # of what the small models have, by the end of a name
    **dict.fromkeys(("head_dim", "d_kv", "mrope_section"), 4),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads", "attention_heads"), 2),
    **dict.fromkeys(("lora_rank", "moe_intermediate_size", "shared_expert_intermediate_size", "moe_hidden_size"), 8),
}
WIDE = (
    "hidden_size",
    "d_model",
    "embed_dim",
    "output_dim",
    "out_dim",
    "output_proj_dims",
    "hidden_dim",
    "n_embd",
    "projection_dim",
)
NARROW, SMALL_INNER, INNER_SIZE = zoo.HIDDEN, zoo.TEXT["intermediate_size"], 1408
INNER = ("intermediate_size", "ffn_dim", "d_ff", "n_inner")


def grown(name: str, value: Any) -> Any:
    """The large model's value of a setting of the text's config."""
    if isinstance(value, dict):
        return {key: grown(f"{name}__{key}", each) for key, each in value.items()}
    if isinstance(value, list) and name.endswith("intermediate_size"):
        return [grown(name, each) for each in value]
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        return [*value, value[-1]]
    if isinstance(value, list):
        return [each * TIMES["mrope_section"] for each in value] if name.endswith("mrope_section") else value
    if name.endswith(WIDE) and value == NARROW:
        return WIDTH
    if name.endswith("max_position_embeddings"):
        return POSITIONS
    if "vision" in name or "audio" in name or type(value) is not int:
        return value
    if name.endswith(INNER) and value == SMALL_INNER:
        return INNER_SIZE
    return value * next((times for end, times in TIMES.items() if name.endswith(end)), 1)


def weights(name: str, parameter: Tensor, draw: zoo.Draw) -> Tensor:
    """Small enough for wide layers to be well conditioned in float32."""
    return (1 + 0.3 * draw.normal(*parameter.shape)) if parameter.ndim == 1 else 0.03 * draw.normal(*parameter.shape)


@contextmanager
def large() -> Iterator[None]:
    """Inside the block the builders of zoo, types_zoo and types_beyond make large models."""
    text = [zoo.TEXT, types_zoo.TEXT, types_beyond.LLAMA, types_beyond.OPT, types_beyond.BERT_SIZES]
    text += [types_beyond.BART_SIZES, types_beyond.T5_SIZES, types_beyond.KOSMOS_SIZES]
    text += [types_beyond.PIX2STRUCT_SIZES]
    with ExitStack() as stack:
        for sizes in text:
            layers = {name: 4 for name in sizes if name in ("num_hidden_layers", "num_layers", "layers")}
            stack.enter_context(patch.dict(sizes, grown("", sizes) | layers))
        stack.enter_context(patch.dict(types_zoo.VISION, {"out_hidden_size": WIDTH}))
        stack.enter_context(patch.object(zoo, "MROPE", grown("", zoo.MROPE)))
        stack.enter_context(patch.object(zoo, "HIDDEN", WIDTH))
        stack.enter_context(patch.object(zoo, "_weights", weights))
        yield


def case(model_type: str) -> tuple[Any, zoo.Inputs]:
    """The type's large model, and one prompt of PROMPT tokens: its image in front, then words; or one of PICTURES.

    Raises:
        KeyError: a type that no case is made for.
    """
    if model_type in types_cases.FAMILIES:
        with large():
            model, inputs = zoo.FAMILIES[types_cases.FAMILIES[model_type]](torch.float32, 0)
    elif model_type in types_cases.PLAIN or model_type in types_mixed.MIXED:
        kind = (types_cases.PLAIN | types_mixed.MIXED)[model_type]
        changes = {name: grown(name, value) for name, value in kind.changes.items()}
        with large():
            model, inputs = types_zoo.build(model_type, replace(kind, changes=changes), torch.float32)
    else:
        name = next(each for each in types_beyond.BEYOND if each.split("/")[0] == model_type)
        with large():
            beyond = PICTURES.get(model_type, types_beyond.BEYOND[name])()
        model, inputs = beyond.model.float(), {name: narrowed(x) for name, x in beyond.inputs.items()}
    return model, longer(inputs, PROMPT - inputs["input_ids"].shape[1]) if "input_ids" in inputs else inputs


def narrowed(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def longer(inputs: zoo.Inputs, words: int) -> zoo.Inputs:
    """The same prompt with so many words behind it; what is said of a token is said of them as of the last one."""
    ids, generator = inputs["input_ids"], torch.Generator().manual_seed(3)
    found = dict(inputs)
    for name, value in inputs.items():
        if value.shape[:2] == ids.shape and words > 0:
            found[name] = torch.cat([value, value[:, -1:].expand(-1, words, *value.shape[2:])], 1)
    found["input_ids"][:, ids.shape[1] :] = torch.randint(10, zoo.TILE, (1, max(words, 0)), generator=generator)
    return found


def answered(model: Any, inputs: zoo.Inputs, tokens: int) -> dict[str, Any]:
    """The arguments of one plain forward over the prompt and an answer, as generate() would have the last logits."""
    known = inspect.signature(model.forward).parameters
    few = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
    if "decoder_input_ids" not in known:
        return {name: x for name, x in longer(inputs, tokens).items() if name != "labels"} | few
    before = inputs.get("decoder_input_ids", torch.tensor([[zoo.EOS]]))
    return {**inputs, "decoder_input_ids": torch.cat([before, torch.full((1, tokens - 1), 20)], 1), **few}
