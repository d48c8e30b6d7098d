"""Tiny random models of every image-text-to-text type of transformers, from their own default configs made small.

`shrunk(model_type)` takes the configs as they are and replaces sizes and ids by name; lists with an entry a layer are
left to the config classes, which derive them from the number of layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import zoo
from torch import nn
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

TEXT = {
    "vocab_size": zoo.VOCABULARY,
    "hidden_size": 64,
    "d_model": 64,
    "intermediate_size": 80,
    "ffn_dim": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": zoo.BOS,
    "eos_token_id": zoo.EOS,
    "pad_token_id": zoo.PAD,
    # latent attention
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    # experts
    "moe_intermediate_size": 48,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
}
VISION = {
    "hidden_size": 32,
    "embed_dim": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "depth": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "projection_dim": 32,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
}
IDS = {"image_token_id": zoo.IMAGE, "image_token_index": zoo.IMAGE, "video_token_id": zoo.VIDEO}


def config_of(model_type: str, **changes: Any) -> PreTrainedConfig:
    """The type's config, small. Changes by dotted names, `text_config__sliding_window=8`."""
    default = CONFIG_MAPPING[model_type]()
    return _small(default, {} if hasattr(default, "text_config") else TEXT, changes, "")


def _small(default: PreTrainedConfig, sizes: dict[str, Any], changes: dict[str, Any], path: str) -> PreTrainedConfig:
    """A config of the same class with its sizes replaced, and those of the configs in it."""
    known = default.to_dict()
    values = {name: size for name, size in sizes.items() if known.get(name) is not None}
    for name, value in vars(default).items():
        if isinstance(value, PreTrainedConfig):
            inner = TEXT if "text" in name or name in ("decoder", "encoder") else VISION
            values[name] = _small(value, inner, changes, f"{path}{name}__")
        elif name.endswith(("_token_id", "_token_index")) and not path:
            values |= {name: IDS[name]} if name in IDS else {}
    rope = known.get("rope_parameters") or {}
    if isinstance(rope, dict) and "mrope_section" in rope:
        values["rope_parameters"] = {**rope, "mrope_section": zoo.MROPE["mrope_section"]}
    mine = {name.removeprefix(path): value for name, value in changes.items() if name.startswith(path)}
    values |= {name: value for name, value in mine.items() if "__" not in name}
    return type(default)(**values)


def model_of(config: PreTrainedConfig, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    model = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    for part in model.modules():
        if isinstance(part, PreTrainedModel) and part._can_set_experts_implementation():
            part.set_experts_implementation("eager")  # the grouped matrix product behind the default has no float64
    draw = zoo.Draw(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(zoo._weights(name, parameter, draw))
    return model


@dataclass(frozen=True)
class Kind:
    """How a type's image is given: its inputs, and how many tokens it takes."""

    tokens: int
    image: Callable[[zoo.Draw], zoo.Inputs]
    changes: dict[str, Any] = field(default_factory=dict)
    tower: bool = True  # the type's own; else, where that needs another library, features are put in its place


def patches(frames: int = 2, size: int = 4, channels: int = 3, **more: Any) -> Kind:
    """4 x 6 patches in the way of Qwen2-VL, 2 x 2 of them a token."""

    def image(draw: zoo.Draw) -> zoo.Inputs:
        pixels = draw.normal(24, channels * frames * size * size)
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 4, 6]])}

    return Kind(6, image, more)


def square(tokens: int, *shape: int, **more: Any) -> Kind:
    """Pixels of this shape, [1, 3, 16, 16] if none is given."""
    return Kind(tokens, lambda draw: {"pixel_values": draw.normal(*(shape or (1, 3, 16, 16)))}, more)


def sized(tokens: int, **more: Any) -> Kind:
    """Of an image whose size is an input beside its pixels."""
    size = torch.tensor([[16, 16]])
    return Kind(tokens, lambda draw: {"pixel_values": draw.normal(1, 3, 16, 16), "image_sizes": size}, more)


def build(model_type: str, kind: Kind, dtype: torch.dtype = torch.float64) -> zoo.Built:
    """The model, and what its processor returns for one prompt, in the model's dtype."""
    config = config_of(model_type, **kind.changes)
    model = model_of(config, dtype) if kind.tower else _without_tower(config, dtype, kind.tokens)
    draw = zoo.Draw(1)
    inputs = zoo._text_inputs(zoo._prompt(draw, [zoo.START, *[zoo.IMAGE] * kind.tokens, zoo.END]))
    inputs |= kind.image(draw)
    visual = (inputs["input_ids"] == zoo.IMAGE).long()
    for name in ("mm_token_type_ids", "moe_mm_token_type_ids"):
        if name in inspect.signature(model.forward).parameters:
            inputs[name] = visual
    return model, {name: x.to(dtype) if x.is_floating_point() else x for name, x in inputs.items()}


def _without_tower(config: PreTrainedConfig, dtype: torch.dtype, tokens: int) -> PreTrainedModel:
    make = AutoModel.from_config

    def from_config(*given: Any, **options: Any) -> Any:
        inner = given[0] if given else options["config"]  # which transformers 5.17 passes by name
        return make(*given, **options) if inner is config.get_text_config() else nn.Identity()

    with patch.object(AutoModel, "from_config", from_config):
        model = model_of(config, dtype)
    features = zoo.Draw(2).normal(1, tokens, config.get_text_config().hidden_size).to(dtype)

    def get_image_features(pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(pooler_output=features)

    model.model.get_image_features = get_image_features
    return model
