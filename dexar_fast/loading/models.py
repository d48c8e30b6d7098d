"""Loads a model from a folder or the Hub, or refuses it with the reason."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import as_file
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import GenerationMixin

from dexar_fast.errors import DexarError, InputError, ModelError, reason
from dexar_fast.loading import adapters
from dexar_fast.loading.checkpoint import Report
from dexar_fast.loading.libraries import missing
from dexar_fast.loading.names import EMBEDDED
from dexar_fast.model.kinds import head_of, writer_in
from dexar_fast.model.modules import parameters
from dexar_fast.prompt.inputs import IMAGE_INPUTS
from dexar_fast.vision.geometry import names_image_token

HUB_OPTIONS = ("revision", "token", "trust_remote_code", "cache_dir", "local_files_only", "subfolder")
OF_ITS_REPOSITORY = ("revision", "subfolder")  # an adapter's say nothing about the model under it
HUB_FILE = "config.json"  # every model on the Hub has one: asking for it shows whether the Hub answers


class Loaded(NamedTuple):
    model: Any
    processor: Any
    warnings: list[str]  # about weights


def load(name: Any, device: Any, dtype: Any, *, allow_missing_weights: bool = False, **options: Any) -> Loaded:
    """A model and its processor by id or folder, also of an adapter; the embedded ones without a name.

    Raises:
        ModelError: no such model, weights that are not there, or a device. InputError: an unknown dtype.
    """
    if name is None:
        with as_file(EMBEDDED) as folder:
            return load(str(folder), device, dtype or torch.float32, **options)
    dtype = checked_dtype(dtype)
    try:
        if not _answers(name, options):
            options["local_files_only"] = True
        loaded = _load(name, allow_missing_weights, dtype=dtype, **options)
    except DexarError:
        raise
    except Exception as error:  # for a broken folder transformers raises any kind of error
        raise _cannot_load(name, error) from error
    model = loaded.model
    if "device_map" not in options:
        model = _placed(model, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return loaded._replace(model=model.eval())


def _load(name: Any, allowed: bool, **options: Any) -> Loaded:
    hub = _of_hub(options)
    adapter = adapters.find(name, hub)
    if adapter is None:
        processor = _processor(name, hub)
        model, warnings = _model(name, allowed, options)
        return Loaded(model, processor, warnings)
    with adapters.base_of(name, adapter) as base:
        of_base = {key: value for key, value in options.items() if key not in OF_ITS_REPOSITORY}
        of_base |= {"revision": adapter.revision} if adapter.revision else {}
        try:
            model, warnings = _model(base, allowed, of_base)
            processor = _own_or(base, name, hub, _of_hub(of_base))
        except ModelError:
            raise
        except Exception as error:
            raise _cannot_load(base, error, f", the model under the adapter {str(name)!r},") from error
        model, absent, left = adapters.put_on(model, name, hub)
    if os.path.isabs(base) and not os.path.exists(base):  # a folder of links, which is gone
        model.config.name_or_path = str(name)
    return Loaded(model, processor, warnings + Report(absent, left, []).judged(name, allowed))


def _of_hub(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in HUB_OPTIONS}


def _processor(name: Any, hub: Mapping[str, Any]) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(name, **hub)


def _own_or(base: Any, name: Any, hub: Mapping[str, Any], hub_of_base: Mapping[str, Any]) -> Any:
    """The processor that an adapter brings, else its base's."""
    try:
        own = _processor(name, hub)
    except Exception:  # transformers raises any kind where there is none
        own = None
    return own if hasattr(own, "tokenizer") else _processor(base, hub_of_base)  # trainers save a tokenizer only


def _model(name: Any, allowed: bool, options: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """(a model, warnings about its weights)."""
    from transformers import AutoModelForImageTextToText

    told = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # its own refusal names no weights
    both: Any = AutoModelForImageTextToText.from_pretrained(name, **{**options, **told})
    model, info = both
    return model, Report.of(model, info).judged(name, allowed)


def _cannot_load(name: Any, error: Exception, under: str = "") -> ModelError:
    return ModelError(
        f"cannot load {name!r}{under} as a model for images and text: {missing(error) or reason(error)} "
        "(give a folder that holds one, or its name on the Hugging Face Hub)"
    )


def _answers(name: Any, options: Mapping[str, Any]) -> bool:
    """Whether the Hub answers; True where nobody needs to ask it.

    If the Hub cannot be reached, transformers asks for a dozen files, six times each: that takes minutes.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if "local_files_only" in options or is_offline_mode() or os.path.exists(name):
        return True
    try:
        get_hf_file_metadata(hf_hub_url(str(name), HUB_FILE), token=options.get("token"))
    except HFValidationError:  # not a name on the Hub
        return True
    except HfHubHTTPError as error:  # no such model, or one that is not for everyone
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


def check_model(model: Any) -> None:
    """Raises ModelError for what is no transformers model that writes text about images, or has no weights."""
    _check_kind(model)
    if not reads_images(model):
        raise ModelError(
            f"{type(model).__name__} takes no images, only {' and '.join(_reads(model))}: pass a model for images and "
            "text"
        )
    check_writer(model)


def _check_kind(model: Any) -> None:
    """Raises ModelError for what is no transformers model, or none that runs."""
    name = type(model).__name__
    if not _is_transformers_model(model):
        raise ModelError(f"{name} is no transformers model: pass one for images and text")
    if type(model).forward is nn.Module.forward:
        raise ModelError(f"{name} has no forward of its own: pass {writer_in(model) or 'the part that writes text'}")


def check_writer(model: Any) -> None:
    """Raises ModelError for what is no transformers model that writes one token after another, or has no weights."""
    _check_kind(model)
    name = type(model).__name__
    if head_of(model) is None or not hasattr(model, "generate"):
        raise ModelError(f"{name} {_without_head(model)}")
    if not issubclass(type(model), GenerationMixin):
        raise ModelError(
            f"{name} writes by a generate() of its own, not one token after another by that of transformers (it may "
            "be a diffusion model): not supported"
        )
    if _is_split(model):
        raise ModelError(
            f"{name} is split over processes (tensor parallel or FSDP), each with a part of every layer: load it "
            "whole, or by device_map='auto' over the devices of one process"
        )
    offloaded = any(hasattr(module, "_hf_hook") for module in model.modules())
    if not offloaded and any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError(f"{name} is on the meta device, without weights: load it by from_pretrained()")


def _is_split(model: Any) -> bool:
    """Whether this process holds a part of the weights; only tensors that are spread so know a mesh of devices."""
    return (getattr(model, "tp_size", None) or 1) > 1 or any(hasattr(x, "device_mesh") for x in model.parameters())


def reads_images(model: Any) -> bool:
    """Whether a transformers model takes images or videos."""
    return bool({"image", "video"} & set(_reads(model)))


def _reads(model: Any) -> list[str]:
    """What a model takes, as transformers says, but for images: by its image token or its forward.

    The language model of a family for images and text says what its family takes (Gemma3ForCausalLM).
    """
    if names_image_token(model.config):
        return ["image"]
    said = getattr(model, "input_modalities", "text")
    takes_images = any(name.startswith(IMAGE_INPUTS) for name in parameters(type(model).forward))
    kinds = [said] if isinstance(said, str) else list(said)
    return kinds if takes_images else [kind for kind in kinds if kind not in ("image", "video")]


def _without_head(model: Any) -> str:
    if getattr(model, "base_model", None) is model and not hasattr(model, "generate"):
        return "has no output head: load the ...ForConditionalGeneration class"
    writer = writer_in(model)
    if writer is None:
        return "shows no output head of its own: it writes no text (a policy, say); not supported"
    return f"shows no output head of its own: {writer} writes its text; not supported"


def _is_transformers_model(model: Any) -> bool:
    return isinstance(model, nn.Module) and hasattr(model, "config") and hasattr(model, "get_output_embeddings")
