"""Models and inputs at the door: loaded, or refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.errors import InputError, ModelError
from dexar_fast.geometry import visual_token_ids

EMBEDDED = files("dexar_fast") / "assets" / "shapes-llava"
UNUSED_INPUTS = ("labels",)  # PaliGemma's processor makes them; a loss over them is NaN


def load(name: Any, device: Any, dtype: Any, **options: Any) -> tuple[Any, Any]:
    """A model and its processor by id or folder; the embedded ones without a name. Raises ModelError."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    if name is None:
        with as_file(EMBEDDED) as folder:
            return load(str(folder), device, dtype or torch.float32, **options)
    try:
        processor = AutoProcessor.from_pretrained(name)
        model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype or "auto", **options)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot load {name!r} as a model for images and text: {reason}") from error
    if "device_map" not in options:
        model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return model.eval(), processor


def check_model(model: Any) -> None:
    """Raises ModelError for what is no decoder-only transformers model with image tokens."""
    if not _generates(model):
        raise ModelError(f"{type(model).__name__} is no transformers model: pass one for images and text")
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(f"{type(model).__name__} is an encoder-decoder: dexar_fast explains decoder-only models")
    if model.get_output_embeddings() is None:
        raise ModelError(f"{type(model).__name__} has no output head: load the ...ForConditionalGeneration class")
    visual_token_ids(model.config)


def _generates(model: Any) -> bool:
    return isinstance(model, nn.Module) and hasattr(model, "generate") and hasattr(model, "config")


def on_device(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs the model wants, where it wants them; an offloaded model fetches them itself."""
    device = None if model.device.type == "meta" else model.device
    return {
        key: value.to(device) if isinstance(value, Tensor) else value
        for key, value in inputs.items()
        if key not in UNUSED_INPUTS
    }


def check_inputs(model: Any, inputs: Mapping[str, Any], targets: Tensor | None, new_tokens: int | None) -> None:
    """Raises InputError for batches, padding, impossible ids, and answers beyond the context."""
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.shape[0] != 1:
        raise InputError("inputs must hold input_ids [1, P]: explain one prompt at a time, as the processor returns it")
    mask = inputs.get("attention_mask")
    if mask is not None and not bool((mask != 0).all()):
        raise InputError(
            f"the inputs are padded ({int((mask == 0).sum())} positions masked): call the processor without padding"
        )
    if targets is not None:
        _check_targets(model, targets)
    longest = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    length = ids.shape[1] + (len(targets) if targets is not None else (new_tokens or 0))
    if longest is not None and length > longest:
        raise InputError(
            f"the prompt of {ids.shape[1]} tokens and its answer take {length}, more than the model's context of "
            f"{longest}: shorten the answer, the prompt, or the image"
        )


def _check_targets(model: Any, targets: Tensor) -> None:
    if targets.ndim != 1 or targets.is_floating_point() or targets.dtype == torch.bool or len(targets) == 0:
        raise InputError(f"target_ids must be [T] integers with T >= 1, not {targets.dtype} {list(targets.shape)}")
    vocabulary = model.get_output_embeddings().out_features
    if int(targets.min()) < 0 or int(targets.max()) >= vocabulary:
        raise InputError(f"target_ids must lie in the vocabulary, 0 to {vocabulary - 1}")
    if bool(torch.isin(targets.cpu(), torch.tensor(visual_token_ids(model.config))).any()):
        raise InputError("target_ids hold the model's image token: an answer is text")
