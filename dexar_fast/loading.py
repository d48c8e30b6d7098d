"""Models and inputs at the door: loaded, or refused with the reason."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.errors import InputError, ModelError
from dexar_fast.geometry import visual_positions, visual_token_ids
from dexar_fast.libraries import missing
from dexar_fast.model_cache import NAMES as CACHE_NAMES

EMBEDDED = files("dexar_fast") / "assets" / "shapes-llava"
UNUSED_INPUTS = ("labels",)  # PaliGemma's processor makes them; a loss over them is NaN
OWN_INPUTS = (*CACHE_NAMES, "use_cache", "logits_to_keep", "inputs_embeds", "output_attentions")
HUB_OPTIONS = ("revision", "token", "trust_remote_code", "cache_dir", "local_files_only", "subfolder")
HUB_FILE = "config.json"  # of every model on the Hub: asked for to learn whether the Hub answers
IMAGE_INPUTS = ("pixel", "image", "video")  # what the names of a family's inputs for its images begin with


def load(name: Any, device: Any, dtype: Any, **options: Any) -> tuple[Any, Any]:
    """A model and its processor by id or folder; the embedded ones without a name.

    Raises:
        ModelError: no such model, or a device that is not there. InputError: an unknown dtype.
    """
    if name is None:
        with as_file(EMBEDDED) as folder:
            return load(str(folder), device, dtype or torch.float32, **options)
    dtype = checked_dtype(dtype)
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        if not _answers(name, options):
            options["local_files_only"] = True
        hub = {key: value for key, value in options.items() if key in HUB_OPTIONS}
        processor = AutoProcessor.from_pretrained(name, **hub)
        model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, **options)
    except Exception as error:  # for a broken folder transformers raises any kind of error
        raise ModelError(
            f"cannot load {name!r} as a model for images and text: {missing(error) or reason(error)} "
            "(give a folder that holds one, or its name on the Hugging Face Hub)"
        ) from error
    if "device_map" not in options:
        model = _placed(model, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return model.eval(), processor


def _answers(name: Any, options: Mapping[str, Any]) -> bool:
    """Whether the Hub answers; True where it need not be asked.

    transformers would ask it for a dozen files, and for each of them six times: minutes, where it cannot be reached.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if "local_files_only" in options or is_offline_mode() or os.path.exists(name):
        return True
    try:
        get_hf_file_metadata(hf_hub_url(str(name), HUB_FILE), token=options.get("token"))
    except HFValidationError:  # of a name that is none
        return True
    except HfHubHTTPError as error:  # of a model that is not there, or is not for everyone
        return error.response is not None and error.response.status_code < 500
    except Exception:  # the Hub's client changes its HTTP library, and with it the errors, from version to version
        return False
    return True


def checked_dtype(dtype: Any) -> Any:
    known = {"float16", "bfloat16", "float32", "float64"}
    if dtype is None or dtype == "auto":
        return "auto"
    if str(dtype).removeprefix("torch.") not in known:
        raise InputError(f"dtype {dtype!r} is none of {', '.join(sorted(known))}")
    return dtype


def _placed(model: Any, device: Any) -> Any:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ModelError(f"cannot put the model on device {str(device)!r}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def unwrapped(model: Any) -> Any:
    """The transformers model inside torch.compile's and PEFT's wrappers: attention is switched and hooked there."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif hasattr(model, "get_base_model"):
            _check_adapter(model)
            model = model.get_base_model()
        else:
            return model


def _check_adapter(model: Any) -> None:
    """Prompts that PEFT learned stand in its wrapper, and would be left out."""
    for config in getattr(model, "peft_config", {}).values():
        if getattr(config, "is_prompt_learning", False):
            raise ModelError(
                f"the adapter is of type {type(config).__name__}, which puts learned tokens before the prompt: "
                "dexar_fast explains adapters of weights (LoRA, IA3, ...)"
            )


def check_model(model: Any) -> None:
    """Raises ModelError for what is no decoder-only transformers model with image tokens, or has no weights."""
    if not _is_transformers_model(model):
        raise ModelError(f"{type(model).__name__} is no transformers model: pass one for images and text")
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(f"{type(model).__name__} is an encoder-decoder: dexar_fast explains decoder-only models")
    if model.get_output_embeddings() is None or not hasattr(model, "generate"):
        raise ModelError(f"{type(model).__name__} has no output head: load the ...ForConditionalGeneration class")
    visual_token_ids(model.config)
    offloaded = any(hasattr(module, "_hf_hook") for module in model.modules())
    if not offloaded and any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError(f"{type(model).__name__} is on the meta device, without weights: load it by from_pretrained()")


def _is_transformers_model(model: Any) -> bool:
    return isinstance(model, nn.Module) and hasattr(model, "config") and hasattr(model, "get_output_embeddings")


def on_device(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs the model wants, where it wants them; an offloaded model fetches them itself. Raises InputError."""
    if not isinstance(inputs, Mapping):
        raise InputError(f"inputs must be what the processor returns (input_ids, ...), not a {type(inputs).__name__}")
    own = [key for key in OWN_INPUTS if key in inputs]
    if own:
        raise InputError(f"inputs hold {', '.join(own)}: pass what the processor returns, the rest is set here")
    device = None if model.device.type == "meta" else model.device
    placed = {
        key: value.to(device) if isinstance(value, Tensor) else value
        for key, value in inputs.items()
        if key not in UNUSED_INPUTS and value is not None
    }
    ids = placed.get("input_ids")
    return placed | {"input_ids": ids.long()} if isinstance(ids, Tensor) else placed


def as_ids(target_ids: Any) -> Tensor:
    """Target ids as users hold them: a tensor, an array or a list. Raises InputError."""
    try:
        return torch.as_tensor(target_ids, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"target_ids must be [T] integers: {reason(error)}") from error


def context(model: Any) -> int | None:
    """The most positions a model's config allows; None where it does not say."""
    return getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)


def vocabulary(model: Any) -> int:
    """How many ids there are to embed."""
    embeddings = model.get_input_embeddings()
    return getattr(embeddings, "base_layer", embeddings).num_embeddings  # under a PEFT adapter


def check_length(model: Any, prompt: int, new: int) -> None:
    """Raises InputError for a prompt and an answer, in tokens, that the model's context does not hold."""
    longest = context(model)
    if longest is not None and prompt + new > longest:
        raise InputError(
            f"the prompt of {prompt} tokens and its answer take {prompt + new}, more than the model's context of "
            f"{longest}: shorten the answer, the prompt, or the image"
        )


def check_inputs(model: Any, inputs: Mapping[str, Any], targets: Tensor | None, new_tokens: int | None) -> None:
    """Raises InputError for batches, padding, missing images, impossible ids, and answers beyond the context."""
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.shape[0] != 1:
        raise InputError("inputs must hold input_ids [1, P]: explain one prompt at a time, as the processor returns it")
    for name in ("attention_mask", "pixel_values"):
        value = inputs.get(name)
        if value is not None and not (isinstance(value, Tensor) and value.numel() > 0):
            raise InputError(f"inputs hold no tensor as {name}: call the processor with return_tensors='pt'")
    mask = inputs.get("attention_mask")
    if mask is not None and getattr(mask, "shape", None) != ids.shape:
        raise InputError(f"attention_mask must be a tensor {list(ids.shape)} like input_ids: pass the processor's")
    if mask is not None and not bool((mask != 0).all()):
        raise InputError(
            f"the inputs are padded ({int((mask == 0).sum())} positions masked): call the processor without padding"
        )
    if ids.shape[1] == 0 or int(ids.min()) < 0 or int(ids.max()) >= vocabulary(model):
        raise InputError(f"input_ids must hold ids of the vocabulary, 0 to {vocabulary(model) - 1}")
    visual_positions(model.config, ids)
    if not any(key.startswith(IMAGE_INPUTS) for key in inputs):
        raise InputError("the inputs hold image tokens and no image: pass pixel_values, as the processor returns them")
    if targets is not None:
        _check_targets(model, targets)
    check_length(model, ids.shape[1], len(targets) if targets is not None else (new_tokens or 1))


def _check_targets(model: Any, targets: Tensor) -> None:
    if targets.ndim != 1 or targets.is_floating_point() or targets.dtype == torch.bool or len(targets) == 0:
        raise InputError(f"target_ids must be [T] integers with T >= 1, not {targets.dtype} {list(targets.shape)}")
    targets = targets.long()
    if int(targets.min()) < 0 or int(targets.max()) >= vocabulary(model):
        raise InputError(f"target_ids must lie in the vocabulary, 0 to {vocabulary(model) - 1}")
    if bool(torch.isin(targets.cpu(), torch.tensor(visual_token_ids(model.config))).any()):
        raise InputError("target_ids hold the model's image token: an answer is text")
