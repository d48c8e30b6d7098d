"""PEFT's adapters: finds them in a model, loads them over the base they name, refuses those it would leave out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dexar_fast.errors import ModelError, reason

CONFIG = "adapter_config.json"
WEIGHTS = ("*.safetensors", "*.bin")
# Types that stand in the model's own modules: running the modules runs the adapter. Each was compared with PEFT's
# wrapper (tests/loading/test_adapters.py). The other types act in the wrapper, around a whole call; it does not run.
IN_MODULES = (
    "LORA ADALORA ADAMSS BEFT BOFT C3A DEFT DELORA FOURIERFT FROD GLORA GRALORA HIRA HRA IA3 LILY LN_TUNING LOHA LOKR "
    "MISS OFT OSF PEANUT PSOFT PVERA RANDLORA ROAD SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS UNILORA VBLORA VERA "
    "WAVEFT"
)


def unwrapped(model: Any) -> Any:
    """The transformers model inside torch's and PEFT's wrappers: attention is switched and hooked there.

    Raises:
        ModelError: an adapter that the model without its wrapper would leave out.
    """
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.DataParallel | DistributedDataParallel):
            model = model.module
        elif hasattr(model, "get_base_model"):
            check_adapters(model)
            model = model.get_base_model()
        elif type(model).__module__.startswith("peft."):  # a mix of adapters of several types
            model = model.model
        else:
            return model


def check_adapters(model: Any) -> None:
    """Raises ModelError for adapters that act outside the model's modules.

    `model` is PEFT's wrapper or the model in it, which also knows of adapters that were added later.
    """
    configs = getattr(model, "peft_config", None)
    for config in configs.values() if isinstance(configs, Mapping) else ():
        _check(config)


def _check(config: Any) -> None:
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    named = f"the adapter is of type {kind} ({type(config).__name__}), which"
    if getattr(config, "is_prompt_learning", False):
        raise ModelError(
            f"{named} puts learned tokens before the prompt: dexar_fast explains adapters of weights (LoRA, IA3, ...)"
        )
    if getattr(config, "alora_invocation_tokens", None):
        raise ModelError(
            f"{named} begins at its invocation tokens (activated LoRA): PEFT finds them anew in every call, and "
            "dexar_fast would leave the adapter out. It explains adapters that hold for every token"
        )
    if getattr(config, "sample_at_inference", False):
        raise ModelError(f"{named} draws its weights anew in every call: set sample_at_inference=False")
    if kind not in IN_MODULES.split():
        raise ModelError(
            f"{named} works in PEFT's wrapper, call by call, or is not known here: dexar_fast would leave it out. It "
            "explains adapters that stand in the model's modules (LoRA, IA3, ...); merge_and_unload() makes a plain "
            "model of some others"
        )


def find(name: Any, hub: Mapping[str, Any]) -> Any:
    """PEFT's config of an adapter in a folder or under a name on the Hub; None where there is no adapter.

    Raises:
        ModelError: PEFT is not installed, or an adapter that would be left out.
    """
    from transformers.utils import find_adapter_config_file

    if find_adapter_config_file(str(name), **_without_code(hub)) is None:
        return None
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise ModelError(f"{str(name)!r} is a PEFT adapter: pip install peft") from error
    try:
        config = PeftConfig.from_pretrained(str(name), **_without_code(hub))
    except Exception as error:  # a type that this PEFT does not know, or no JSON
        raise ModelError(f"PEFT cannot read {CONFIG} of {str(name)!r}: {reason(error)}") from error
    _check(config)
    return config


def _without_code(hub: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in hub.items() if key != "trust_remote_code"}


@contextmanager
def base_of(name: Any, config: Any) -> Iterator[str]:
    """Where the model under an adapter lies: beside it in its folder, or where its config says. Raises ModelError."""
    beside = _beside(Path(name)) if os.path.isdir(name) else []
    if beside:  # in that folder, transformers would load the adapter too and report on it alone
        with TemporaryDirectory() as folder:
            for file in beside:
                (Path(folder) / file.name).symlink_to(file.resolve())
            yield folder
        return
    base = config.base_model_name_or_path
    if not base:
        raise ModelError(
            f"the adapter {str(name)!r} names no model under it: put base_model_name_or_path into its {CONFIG}"
        )
    if os.path.isfile(os.path.join(base, CONFIG)) and not _beside(Path(base)):
        raise ModelError(f"the adapter {str(name)!r} stands on {base!r}, which is an adapter itself: merge that first")
    yield str(base)


def _beside(folder: Path) -> list[Path]:
    """The files of a whole model in the folder of an adapter; none where its weights are not there."""
    files = [file for file in folder.iterdir() if not file.name.startswith("adapter_")]
    weights = [file for file in files if any(file.match(pattern) for pattern in WEIGHTS)]
    return files if weights and (folder / "config.json").exists() else []


def put_on(model: Any, name: Any, hub: Mapping[str, Any]) -> tuple[Any, list[str], list[str]]:
    """(the model with an adapter, weights the adapter lacks, weights of it that nothing in the model takes)."""
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, str(name), **_without_code(hub))
    # from_pretrained hides its report of the weights: loading them once more returns it.
    renamed = getattr(model, "_checkpoint_conversion_mapping", {})
    report = adapted.load_adapter(str(name), "default", key_mapping=renamed, **_without_code(hub))
    return adapted, _not_shared(adapted, report.missing_keys), sorted(report.unexpected_keys)


def _not_shared(model: Any, missing: list[str]) -> list[str]:
    """The missing weights, except other names of weights that were there (VB-LoRA's bank of vectors)."""
    state = model.state_dict()
    there = {tensor.data_ptr() for key, tensor in state.items() if key not in missing}
    return sorted(key for key in missing if key not in state or state[key].data_ptr() not in there)
