"""The types of types_cases at a size where time is in the matrix products: d = 512, 4 layers, 8 heads, float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import types_beyond
import types_zoo
import zoo

WIDTH, PROMPT = 512, 620
POSITIONS = 2048
TIMES = {  # of what the small models have, by the end of a name
    **dict.fromkeys(("head_dim", "d_kv", "mrope_section"), 4),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads", "attention_heads"), 2),
    **dict.fromkeys(("lora_rank", "moe_intermediate_size", "shared_expert_intermediate_size", "moe_hidden_size"), 8),
}
WIDE = ("hidden_size", "d_model", "embed_dim", "output_dim", "out_dim", "output_proj_dims", "hidden_dim", "n_embd")
NARROW, SMALL_INNER, INNER_SIZE = zoo.HIDDEN, zoo.TEXT["intermediate_size"], 1408
INNER = ("intermediate_size", "ffn_dim", "d_ff", "n_inner")
GRID = 24  # tokens a side of an image whose size is an input


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


@contextmanager
def large() -> Iterator[None]:
    """Inside the block the builders of zoo, types_zoo and types_beyond make large models."""
    text = [zoo.TEXT, types_zoo.TEXT, types_beyond.LLAMA, types_beyond.OPT, types_beyond.BERT_SIZES]
    text += [types_beyond.BART_SIZES, types_beyond.T5_SIZES, types_beyond.KOSMOS_SIZES]
    with ExitStack() as stack:
        for sizes in text:
            layers = {name: 4 for name in sizes if name in ("num_hidden_layers", "num_layers", "layers")}
            stack.enter_context(patch.dict(sizes, grown("", sizes) | layers))
        stack.enter_context(patch.dict(types_zoo.VISION, {"out_hidden_size": WIDTH}))
        stack.enter_context(patch.object(zoo, "MROPE", grown("", zoo.MROPE)))
        stack.enter_context(patch.object(zoo, "HIDDEN", WIDTH))
        yield
