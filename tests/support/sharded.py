"""A model over two devices, as accelerate spreads one over GPUs: the CPU, and the device of `fake_gpu`.

As on two GPUs, no operator takes tensors of both, but for copies from one to the other and indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from fake_gpu import DEVICE, moved
from torch import nn

HOST = torch.device("cpu")


def spread(model: Any, layers: Sequence[bool], rest: bool, end: bool, apart: nn.Module | None = None) -> Any:
    """The model with those parts on the device of which it is true: each layer, what comes before, norm and head.

    Args:
        apart: a part of a layer that is not where the layer is; it gives its output where it got its input.
    """
    others = set() if apart is None else set(apart.modules())
    text = model.model.language_model
    parts = [*zip(text.layers, layers, strict=True), (text.norm, end), (model.lm_head, end)]
    before = [module for module in model.modules() if not any(module in part.modules() for part, _ in parts)]
    for part, there in parts:
        for module in part.modules():
            _place(module, DEVICE if there != (module in others) else HOST, module in (model, apart), model)
    for module in before:
        _place(module, DEVICE if rest else HOST, module is model, model)
    return model


def _place(module: nn.Module, device: torch.device, back: bool, model: Any) -> None:
    """Its own weights, and what it reads; back: what it gives goes to where its inputs were."""
    if device == DEVICE:
        moved(module, recurse=False)
    hook = AlignDevicesHook(io_same_device=back, skip_keys=model._skip_keys_device_placement)
    add_hook_to_module(module, hook)  # which would move weights, too, if it knew the device
    hook.execution_device = device
