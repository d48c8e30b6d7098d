"""What holds a model, and perhaps its processor: pipelines of transformers, wrappers of nnsight (and of interpreto)."""

from __future__ import annotations

from typing import Any

from torch import nn

from dexar_fast.errors import ModelError

TASK = "image-text-to-text"


def parts(model: Any, processor: Any) -> tuple[Any, Any]:
    """(model, processor) of what holds them; a bare model stays as it is, and so does a processor that was given.

    Raises:
        ModelError: a pipeline of another task.
    """
    if isinstance(model, nn.Module):
        return model, processor
    held = _held(model)
    own = None if held is model else getattr(model, "processor", None)
    return held, own if processor is None else processor


def _held(holder: Any) -> Any:
    from transformers import Pipeline

    if isinstance(holder, Pipeline):
        if holder.task != TASK:
            raise ModelError(
                f"{type(holder).__name__} is for {holder.task!r}: pass a pipeline for {TASK!r}, or a model and its "
                "processor"
            )
        return holder.model
    module = getattr(holder, "_module", None)  # of an Envoy of nnsight, which every wrapper of it is
    return module if isinstance(module, nn.Module) else holder
