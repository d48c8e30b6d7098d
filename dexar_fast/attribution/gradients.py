"""Finds where the gradient path through a layer is cut: by code with a constant output, or a kernel without a backward.

The gradient through a constant, such as a hook's zeros, is 0. A kernel for quantised weights may have no backward. Its
gradient is then unknown, not 0, and a map without it would be silently wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from dexar_fast.attribution.tails.own_ways import has_own_forward, hooks_behind
from dexar_fast.errors import ModelError
from dexar_fast.model.attention import watcher
from dexar_fast.model.modules import below

NO_BACKWARD = "NotImplemented"  # autograd's node for a kernel that has no derivative
LIBRARIES = ("dexar_fast", "torch", "transformers", "accelerate", "peft")  # their hooks do not replace a layer's output


def check_gradient(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> None:
    """Raises ModelError if a module's output depends on its inputs but has no gradient path to any of them.

    Only computed inputs count: an embedding may be a leaf that requires a gradient, too. Whole numbers have none.
    """
    inputs = [x for x in args if isinstance(x, Tensor) and x.grad_fn is not None]
    if not inputs or not output.is_floating_point() or any(leads_back(output, x) for x in inputs):
        return
    if _follows(module, args, kwargs, output):
        name = f"{type(module).__module__}.{type(module).__name__}"
        raise ModelError(f"{name} has no gradient, though its output follows its input {_cut()}")


def _cut() -> str:
    """Why, as far as can be told inside a module."""
    if not torch.is_grad_enabled():
        return "(it runs under torch.no_grad(), as what chooses keys may): what leads through it would be left out"
    return (
        "(quantised for inference only, or detached?): load the model unquantised, or quantised by a library that can "
        "train adapters on it, such as bitsandbytes"
    )


@contextmanager
def checked(layers: list[nn.Module]) -> Iterator[None]:
    """Inside the block every module of the layers that runs is checked so."""
    with ExitStack() as stack:
        for module in (module for layer in layers for module in layer.modules()):
            stack.callback(module.register_forward_hook(_check, with_kwargs=True).remove)
        yield


def _check(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
    if isinstance(output, Tensor):
        check_gradient(module, args, kwargs, output)


def leads_back(output: Tensor, start: Tensor) -> bool:
    """Whether a path leads from `output` back to `start` in the autograd graph, through kernels with a backward."""
    if not output.requires_grad:
        return False
    wanted = get_gradient_edge(start).node
    return any(node is wanted for node in nodes(output))


def is_narrowed(output: Tensor) -> bool:
    """Whether an output in float64 went through another dtype on its way: its digits then follow the shapes."""
    return output.dtype == torch.float64 and any("ToCopy" in node.name() for node in nodes(output))


def nodes(output: Tensor) -> Iterator[Any]:
    """The nodes of the autograd graph behind an output; those without a backward end their paths."""
    ahead: list[Any] = [get_gradient_edge(output).node]
    seen: set[Any] = set()
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            yield node
            seen.add(node)
            ahead += [] if node.name().endswith(NO_BACKWARD) else [behind for behind, _ in node.next_functions]


@torch.no_grad()
def _follows(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> bool:
    """Whether a module, with the hooks on it, gives another output for other inputs."""
    token = watcher.set(None)  # our own hooks stay out of it
    try:
        return not torch.equal(module(*map(_moved, args), **kwargs), output)
    finally:
        watcher.reset(token)


def _moved(x: Any) -> Any:
    """Other numbers, which a norm does not make equal again."""
    return x.flip(-1) * 1.5 + 0.5 if isinstance(x, Tensor) and x.is_floating_point() else x


def go_on_recording(hidden: Tensor, layer: nn.Module) -> None:
    """Makes autograd record what follows a layer, even if the layer has ended recording behind its own output.

    Raises:
        ModelError: a part inside the layer ran without recording.
    """
    if not torch.is_grad_enabled() and not hidden.requires_grad:
        raise ModelError(
            f"a part of {type(layer).__name__} runs under torch.no_grad() or inference_mode() (a forward in the place "
            "of its own?): no gradient leads through it"
        )
    torch.set_grad_enabled(True)


def gradient(output: Tensor, leaf: Tensor, layer: nn.Module, keep: bool = False) -> Tensor:
    """d sum(output) / d leaf, for an output behind a layer; 0 if a hook has replaced what the layer computes.

    Args:
        keep: whether the layer's graph is needed again.
    Raises:
        ModelError: the graph is cut, and no code of the user's is in the layer.
    """
    if leads_back(output, leaf):
        return torch.autograd.grad(output, leaf, torch.ones_like(output), retain_graph=keep)[0]
    if not is_altered(layer):
        raise ModelError(
            f"no gradient leads from the output of {type(layer).__name__} back to its attention: it cannot be explained"
        )
    return torch.zeros_like(leaf)


def reach(outputs: Tensor, leaf: Tensor) -> int:
    """How many queries of the leaf [B, C, H, D] the last of outputs [B, C] depends on, up to its own; 1 at least."""
    if not leads_back(outputs, leaf):
        return 1
    (last,) = torch.autograd.grad(outputs[-1, -1], leaf, retain_graph=True)
    read = (last[-1] != 0).flatten(1).any(1).nonzero()[:, 0].tolist()
    return leaf.shape[1] - read[0] if read else 1


def own_gradients(outputs: Tensor, leaf: Tensor, reach: int) -> Tensor:
    """Of each of outputs [B, C] the gradient at its own query, the last C of leaf [B, C', H, D].

    The joint gradient would add those of others. Queries that are `reach` apart have none in common: one VJP serves.
    """
    count = outputs.shape[1]
    found = torch.empty_like(leaf[:, -count:])
    for first in range(min(reach, count)):
        some = slice(first, None, reach)
        (joint,) = torch.autograd.grad(outputs[:, some].sum(), leaf, retain_graph=True)
        found[:, some] = joint[:, -count:][:, some]
    return found


def is_altered(module: nn.Module) -> bool:
    """Whether the user's code may replace what a module, or one inside it, computes."""
    modules = below(module)
    return any(map(has_own_forward, modules)) or any(map(_is_users, hooks_behind(modules)))


def _is_users(hook: Any) -> bool:
    """Whether a hook is the user's, by the module that defines its function or class; of a partial, its function's."""
    code = getattr(hook, "func", hook)
    return str(getattr(code, "__module__", None) or type(code).__module__).partition(".")[0] not in LIBRARIES
