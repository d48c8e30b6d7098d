"""What kind of model it is: which part of it writes, where its output head is, and where it reads its image."""

from __future__ import annotations

from inspect import Parameter
from typing import Any

from torch import nn
from transformers import GenerationMixin

from dexar_fast.model.modules import parameters
from dexar_fast.vision.geometry import names_image_token

IDS, DECODER_IDS = "input_ids", "decoder_input_ids"
# What layers with cross-attention call the states that they read beside those of their own sequence
OTHERS = {"encoder_hidden_states", "key_value_states", "cross_attention_states", "image_hidden_states"}


def head_of(model: Any) -> nn.Module | None:
    """The module that makes the logits that transformers' generate() reads; None if that cannot be told."""
    own: nn.Module | None = model.get_output_embeddings()
    if own is not None or not isinstance(model, GenerationMixin):
        return own
    return next((module.get_output_embeddings() for _, module in _writers(model)), None)


def writer_in(model: Any) -> str | None:
    """The model inside it that writes text by itself, in words."""
    return next((f"the {type(module).__name__} inside it ({name})" for name, module in _writers(model)), None)


def writer_of(model: Any) -> Any:
    """The model whose generate() is that of transformers: itself, or one inside it that its own generate() calls."""
    if type(model).generate is GenerationMixin.generate:
        return model
    return next((module for _, module in _writers(model)), model)


def _writers(model: Any) -> list[tuple[str, Any]]:
    inside = [(name, module) for name, module in model.named_modules() if module is not model]
    return [(name, m) for name, m in inside if hasattr(m, "generate") and m.get_output_embeddings() is not None]


def reads_elsewhere(model: Any) -> bool:
    """Whether its image may stand elsewhere than among the prompt's ids, or each of its steps needs more than an id."""
    if not names_image_token(model.config) or encodes(model):
        return True
    return _needs_more_than_ids(model) or _reads_others(model)


def encodes(model: Any) -> bool:
    """Whether it is an encoder-decoder: of several parts, perhaps only the config of the text part says so."""
    configs = (model.config, getattr(model.config, "text_config", None))
    return any(getattr(config, "is_encoder_decoder", False) for config in configs)


def opening_of(model: Any) -> list[int] | None:
    """The ids that generate() makes an answer begin with (BART's <s>); None where it stands behind its prompt."""
    if not encodes(model):
        return None
    forced = writer_of(model).generation_config.forced_bos_token_id
    return [] if forced is None else [forced]


def attends_by_hand(model: Any, owner: Any) -> bool:
    """Whether a part of a model knows no attention but the one that its own file writes out."""
    return not (owner._supports_sdpa or owner._supports_attention_backend) and reads_elsewhere(model)


def _needs_more_than_ids(model: Any) -> bool:
    """Whether its forward requires anything beside the ids, as that of an outer model requires the image."""
    _, *known = parameters(type(model).forward).values()
    named = [each for each in known if each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    return any(each.default is Parameter.empty and each.name != IDS for each in named)


def _reads_others(model: Any) -> bool:
    """Whether layers of its decoder, not of a tower or a projector (Granite 4 Vision), read states of others."""
    parts = model.get_decoder().modules()
    members = {type(each) for module in parts if isinstance(module, nn.ModuleList) for each in module}
    return any(OTHERS & parameters(member.forward).keys() for member in members)
