"""A layer run again at the explained positions alone, its attention's output given: autograd records only those.

Where prompt and answer run in one forward, recording it all would cost as much again as the forward. The layer's own
code runs, so nothing is assumed but how far positions reach each other behind the attention. Its first gradient is
compared with that of the whole layer; each later run must give what the layer gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from transformers import Cache

from dexar_fast.attribution.tails.trust import TOLERANCE
from dexar_fast.errors import ModelError
from dexar_fast.model.attention import Call, Watcher, watcher
from dexar_fast.model.decoder import hidden_states

VALUES = (bool, int, float, str, torch.dtype, torch.device, type(None))  # arguments that nothing can be written into


class Again(Watcher):
    """Gives the first attention module the output that it had; of those behind it takes the new one.

    Args:
        outputs: [B, C, H, D] of each module, in their order.
    """

    def __init__(self, outputs: Mapping[nn.Module, Tensor]) -> None:
        self.leaves = {module: output.detach() for module, output in outputs.items()}
        self._first = next(iter(outputs))

    def called(self, *_: Any) -> None:
        """Nothing is new: the layer has run."""

    def given(self, module: nn.Module) -> Tensor | None:
        if module is not self._first:
            return None
        torch.set_grad_enabled(True)
        return self.leaves[module].requires_grad_()

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        given = self.given(module)  # where a module writes its attention out
        if given is None and module in self.leaves:
            self.leaves[module] = output if output.requires_grad else output.requires_grad_()
        return output if given is None else given


def rerun(
    layer: nn.Module, args: Any, kwargs: Mapping[str, Any], outputs: Mapping[nn.Module, Tensor], queries: int
) -> tuple[Tensor, dict[nn.Module, Tensor]]:
    """The layer's hidden states at its last C positions, recorded, and the leaf of each of its attention modules.

    Args:
        args, kwargs: of the layer when it ran over all `queries` positions. outputs: [B, C, H, D] by attention module.
    Raises:
        Whatever the layer does on other shapes than it was written for.
    """
    count = next(iter(outputs.values())).shape[1]
    args, kwargs = tree_map(lambda x: cut(x, queries, count), (args, dict(kwargs)))
    again = Again(outputs)
    token = watcher.set(again)
    try:
        with torch.no_grad():  # up to the attention
            return hidden_states(layer.forward(*args, **kwargs)), again.leaves
    finally:
        watcher.reset(token)


def cut(value: Any, queries: int, count: int) -> Any:
    """What an argument of a layer says of the last `count` of its positions; no cache, and a copy of what is shared.

    Raises:
        ModelError: an object that may be written into.
    """
    if isinstance(value, Tensor):
        return cut_tensor(value, queries, count)
    if isinstance(value, Cache):
        return None
    if isinstance(value, MutableMapping):  # of a class of its own: layers may share keys and values in it
        mine = copy(value)
        mine.update(tree_map(lambda x: cut(x, queries, count), dict(value)))
        return mine
    if not isinstance(value, VALUES):
        raise ModelError(f"{type(value).__name__} may be written into")
    return value


def cut_tensor(value: Tensor, queries: int, count: int) -> Tensor:
    """By the axis that is as long as there are positions; a mask by its keys, too.

    Numbers of keys become those of keys that are there: what attention makes of them is given.
    """
    axes = [axis - value.ndim for axis in range(value.ndim) if value.shape[axis] == queries]
    if not axes:
        return value
    if axes[-2:] != [-2, -1]:
        axes = [axis for axis in axes if axis > -value.ndim][
            :1
        ] or axes  # the first is the batch, which may be as large
    for axis in axes[-2:]:
        value = value.narrow(axis, queries - count, count)
    return value if value.is_floating_point() or value.dtype == torch.bool else value.clamp(max=count - 1)


@contextmanager
def kept(layer: nn.Module) -> Iterator[None]:
    """Puts back what the block writes into a layer's modules. Raises ModelError if it does."""
    before = [(module, dict(vars(module))) for module in layer.modules()]
    versions = [buffer._version for buffer in layer.buffers()]
    try:
        yield
    finally:
        written = [
            (module, own) for module, own in before if any(vars(module).get(name) is not own[name] for name in own)
        ]
        for module, own in written:
            vars(module).update(own)
    if written or versions != [buffer._version for buffer in layer.buffers()]:
        raise ModelError(f"{type(layer).__name__} writes into itself")


def differ(found: Tensor, expected: Tensor) -> Tensor:
    """Whether rows [..., d] are others than by rounding, as a tensor of one bool: True if any is not finite."""
    error = (found.detach() - expected).float().norm(dim=-1)
    return ~(error <= TOLERANCE.get(expected.dtype, 0.0) * expected.float().norm(dim=-1)).all()
