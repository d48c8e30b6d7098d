"""Ways back in the autograd graph: where one is missing, whether the model lost it or its user took it away."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from dexar_fast.errors import ModelError
from dexar_fast.tail import below, has_own_forward, hooks_behind

NO_BACKWARD = "NotImplemented"  # autograd's node for a kernel that has no derivative
LIBRARIES = ("dexar_fast", "torch", "transformers", "accelerate", "peft")  # whose hooks take no way back


def check_gradient(module: nn.Module, inputs: list[Tensor], output: Tensor) -> None:
    """Raises ModelError where no way leads back from a module's output to any of its inputs in the autograd graph.

    Kernels for quantised weights may have no backward: the way through them would silently be left out. What the
    user's own hook or forward cuts off, to ablate it say, has a gradient of 0.
    """
    wanted = {get_gradient_edge(x).node for x in inputs}
    if wanted and not _leads_to(output, wanted) and not is_altered(module):
        raise ModelError(
            f"{type(module).__module__}.{type(module).__name__} has no gradient (quantised for inference only?): load "
            "the model unquantised, or quantised by a library that can train adapters on it, such as bitsandbytes"
        )


def _leads_to(output: Tensor, wanted: set[Any]) -> bool:
    ahead = [output.grad_fn]
    seen: set[Any] = set()
    while ahead and wanted.isdisjoint(seen):
        node = ahead.pop()
        if node is None or node in seen or node.name().endswith(NO_BACKWARD):
            continue
        seen.add(node)
        ahead += [behind for behind, _ in node.next_functions]
    return not wanted.isdisjoint(seen)


def is_altered(module: nn.Module) -> bool:
    """Whether code of the user's may stand in the place of what a module, or one in it, computes."""
    modules = below(module)
    return any(map(has_own_forward, modules)) or any(map(_is_users, hooks_behind(modules)))


def _is_users(hook: Any) -> bool:
    """Of a bound method it is the object's class that counts, of a partial the function."""
    code = getattr(hook, "func", hook)
    return str(getattr(code, "__module__", None) or type(code).__module__).partition(".")[0] not in LIBRARIES


def gradient(output: Tensor, leaf: Tensor, layer: nn.Module) -> Tensor:
    """d sum(output) / d leaf, behind a layer of the model; 0 where the user's own code leaves no way to it.

    Raises:
        ModelError: there is none, and nothing of the user's in the layer.
    """
    found = torch.autograd.grad(output.sum(), leaf, allow_unused=True)[0] if output.requires_grad else None
    if found is None and not is_altered(layer):
        raise ModelError(
            f"the output of {type(layer).__name__} does not depend on what its attention gives, or its gradient is cut "
            "off inside: it cannot be explained"
        )
    return torch.zeros_like(leaf) if found is None else found
