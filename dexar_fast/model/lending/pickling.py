"""A model as another process can take it."""

from __future__ import annotations

from copy import copy
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import output_capturing

from dexar_fast.errors import InputError
from dexar_fast.model import attention
from dexar_fast.model.lending.session import IMPLEMENTATION

_CAPTURING = output_capturing.__name__  # its hooks are local functions, which no pickle takes
_OURS = "dexar_fast."
_INSTALLED = "_output_capturing_hooks_installed"  # without it the next forward installs them


def picklable(model: Any) -> Any:
    """The same modules over the same tensors, without the hooks that transformers installs in a model's first forward.

    Raises:
        InputError: an answer is being explained: the model would arrive with our hooks, or our attention for its own.
    """
    if _is_explaining(model):
        raise InputError("the model is explaining an answer right now: pickle the Explainer when that is done")
    copies = {module: _without_capturing(module) for module in model.modules()}
    for twin in copies.values():
        children = {name: child and copies[child] for name, child in twin._modules.items()}
        vars(twin)["_modules"] = children
    return copies[model]


def register(model: nn.Module) -> None:
    """Tells transformers what the classes of a model capture, as making one does; else an unpickled one captures none.

    LLaVA, for one, takes the features of an image from hidden states that are captured so.
    """
    registry = getattr(output_capturing, "_CAN_RECORD_REGISTRY", {})
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            dict.setdefault(registry, str(type(module)), module._can_record_outputs)


def _is_explaining(model: Any) -> bool:
    hooks = (hook for module in model.modules() for hook in module._forward_pre_hooks.values())
    lent = getattr(model.config.get_text_config(decoder=True), IMPLEMENTATION) == attention.NAME
    return lent or any(str(getattr(hook, "__module__", None)).startswith(_OURS) for hook in hooks)


def _without_capturing(module: nn.Module) -> nn.Module:
    twin = copy(module)
    hooks = {number: hook for number, hook in module._forward_hooks.items() if not _captures(hook)}
    vars(twin)["_forward_hooks"] = type(module._forward_hooks)(hooks)
    vars(twin).pop(_INSTALLED, None)
    return twin


def _captures(hook: Any) -> bool:
    return getattr(hook, "__module__", None) == _CAPTURING
