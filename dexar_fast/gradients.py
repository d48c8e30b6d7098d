"""Where the way back through a layer is cut: by code whose output is constant, or by a kernel without a backward.

The gradient through a constant, such as a hook's zeros, is 0. A kernel for quantised weights may have no backward: its
gradient is not 0, only unknown, and leaving that way out would be silently wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from dexar_fast.attention import watcher
from dexar_fast.errors import ModelError

NO_BACKWARD = "NotImplemented"  # autograd's node for a kernel that has no derivative


def check_gradient(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> None:
    """Raises ModelError where a module's output follows its inputs, but no way leads back to any of them."""
    inputs = [x for x in args if isinstance(x, Tensor) and x.requires_grad]
    if inputs and not any(leads_back(output, x) for x in inputs) and _follows(module, args, kwargs, output):
        raise ModelError(
            f"{type(module).__module__}.{type(module).__name__} has no gradient, though its output follows its input "
            "(quantised for inference only, or detached?): load the model unquantised, or quantised by a library that "
            "can train adapters on it, such as bitsandbytes"
        )


def leads_back(output: Tensor, start: Tensor) -> bool:
    """Whether a way leads back from a tensor to another in the autograd graph, through kernels with a backward."""
    if not output.requires_grad:
        return False
    wanted = get_gradient_edge(start).node
    ahead: list[Any] = [get_gradient_edge(output).node]
    seen: set[Any] = set()
    while ahead:
        node = ahead.pop()
        if node is wanted:
            return True
        if node is None or node in seen or node.name().endswith(NO_BACKWARD):
            continue
        seen.add(node)
        ahead += [behind for behind, _ in node.next_functions]
    return False


@torch.no_grad()
def _follows(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> bool:
    """Whether other inputs give a module, with the hooks on it, another output."""
    token = watcher.set(None)  # our own hooks stay out of it
    try:
        return not torch.equal(module(*map(_moved, args), **kwargs), output)
    finally:
        watcher.reset(token)


def _moved(x: Any) -> Any:
    """Other numbers, also for what norms them."""
    return x.flip(-1) * 1.5 + 0.5 if isinstance(x, Tensor) and x.is_floating_point() else x
