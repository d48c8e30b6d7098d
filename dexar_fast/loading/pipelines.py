"""transformers' pipelines: the model and the processor that one for images and text holds."""

from __future__ import annotations

from typing import Any

from torch import nn

from dexar_fast.errors import ModelError

TASK = "image-text-to-text"


def parts(model: Any, processor: Any) -> tuple[Any, Any]:
    """(model, processor) of a pipeline; what is none stays as it is, and so does a processor that was given.

    Raises:
        ModelError: a pipeline of another task.
    """
    if isinstance(model, nn.Module):
        return model, processor
    from transformers import Pipeline

    if not isinstance(model, Pipeline):
        return model, processor
    if model.task != TASK:
        raise ModelError(
            f"{type(model).__name__} is for {model.task!r}: pass a pipeline for {TASK!r}, or a model and its processor"
        )
    return model.model, model.processor if processor is None else processor
