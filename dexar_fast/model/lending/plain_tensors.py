"""Weights that were made or cast under torch.inference_mode(), in a form that autograd takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import dlpack

from dexar_fast.errors import ModelError


def plain_tensors(modules: Iterable[nn.Module]) -> list[tuple[nn.Module, str, Tensor]]:
    """(module, name, tensor) for each inference tensor: another tensor over the same memory. Tied ones stay tied.

    Raises:
        ModelError: a tensor of a kind that cannot share its memory.
    """
    aliases: dict[int, Tensor] = {}
    found = []
    for module in modules:
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and tensor.is_inference():
                if id(tensor) not in aliases:
                    aliases[id(tensor)] = _alias(tensor)
                found.append((module, name, aliases[id(tensor)]))
    return found


def _alias(tensor: Any) -> Tensor:
    try:
        with torch.inference_mode(False):
            plain = dlpack.from_dlpack(tensor.detach())
    except Exception as error:  # from quantised and other special tensors
        raise ModelError(
            f"the weights are inference tensors ({type(tensor).__name__}): load the model outside inference_mode()"
        ) from error
    return nn.Parameter(plain, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else plain
