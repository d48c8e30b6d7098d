"""The output head of a model: its own, or that of the language model inside it whose logits its forward hands on."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import GenerationMixin


def head_of(model: Any) -> nn.Module | None:
    """The module that makes the logits that transformers' generate() reads; None if that cannot be told."""
    own: nn.Module | None = model.get_output_embeddings()
    if own is not None or getattr(type(model), "generate", None) is not GenerationMixin.generate:
        return own
    return next((module.get_output_embeddings() for _, module in _writers(model)), None)


def writer_in(model: Any) -> str | None:
    """The model inside it that writes text by itself, in words."""
    return next((f"the {type(module).__name__} inside it ({name})" for name, module in _writers(model)), None)


def _writers(model: Any) -> list[tuple[str, Any]]:
    inside = [(name, module) for name, module in model.named_modules() if module is not model]
    return [(name, m) for name, m in inside if hasattr(m, "generate") and m.get_output_embeddings() is not None]
