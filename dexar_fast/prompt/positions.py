"""Positions that a model takes from what its processor says of each token (M-RoPE)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

TYPES = "mm_token_type_ids"
WITHOUT_TYPES = (
    f"the inputs lack {TYPES}, which this model takes the places of an image's tokens from: without them transformers "
    f"numbers them like words, and the answer may be another; call the processor with return_{TYPES}=True"
)


def warning(model: Any, inputs: Mapping[str, Any]) -> str | None:
    """A warning of inputs from which a model would number an image's tokens like words; None of others."""
    if TYPES in inputs or "position_ids" in inputs or not _takes_types(model):
        return None
    return WITHOUT_TYPES


def _takes_types(model: Any) -> bool:
    """Whether the model computes positions of several axes, from the kinds of tokens."""
    owners = [model, getattr(model, "model", None)]
    functions = [getattr(owner, "get_rope_index", None) for owner in owners]
    return any(TYPES in inspect.signature(each).parameters for each in functions if each is not None)
