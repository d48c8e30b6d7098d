"""Attention that a module writes out, softmax(scores) V, instead of calling transformers' AttentionInterface.

A module's tensor functions are followed while it runs: what softmax gives, through dropout and views, up to the product
with the values. That product is handed to whoever watches the thread, as the interface's output is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dexar_fast.model.attention import Call, watcher

PRODUCTS = ("matmul", "__matmul__", "bmm")


@contextmanager
def by_hand(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block the attention that these modules write out counts as a call of the interface."""
    followed = Followed()
    with ExitStack() as stack:
        for module in modules:
            enter = module.register_forward_pre_hook(followed.enter)
            leave = module.register_forward_hook(followed.leave, always_call=True)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        yield


class Followed(TorchFunctionMode):
    """Follows the innermost of the modules that run."""

    def __init__(self) -> None:
        super().__init__()
        self._running: list[nn.Module] = []
        self._scores: Tensor
        self._probabilities: list[Tensor] = []  # what softmax gave, and the same behind dropout and views

    def enter(self, module: nn.Module, _args: Any) -> None:
        if watcher.get() is None:  # another thread's forward
            return
        self._running.append(module)
        if len(self._running) == 1:
            self.__enter__()

    def leave(self, module: nn.Module, _args: Any, _output: Any) -> None:
        if watcher.get() is None:
            return
        self._running.pop()
        if not self._running:
            self._probabilities = []
            self.__exit__(None, None, None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name == "softmax" and args[0].ndim >= 3:
            self._scores, self._probabilities = args[0], [output]
        elif args and any(args[0] is each for each in self._probabilities):
            if name in PRODUCTS:
                return self._handed(args[1], output)
            if isinstance(output, Tensor) and output.numel() == args[0].numel():
                self._probabilities.append(output)
        return output

    def _handed(self, value: Tensor, output: Tensor) -> Tensor:
        """The product [..., H, Q, D] that the module goes on with; value: [..., H, S, D]."""
        self._probabilities = []
        watching = watcher.get()
        assert watching is not None
        seen = self._scores > torch.finfo(self._scores.dtype).min / 2
        values, products, seen = (each.view(-1, *each.shape[-3:]) for each in (value, output, seen))
        given = watching.attention(self._running[-1], products.transpose(1, 2), _call(values, seen))
        return given.transpose(1, 2).view(output.shape)


def _call(value: Tensor, seen: Tensor) -> Call:
    """Which keys each query may read is in the scores; of queries and keys only the shapes are true."""
    query, key = (value.new_empty(1).expand(*shape, 1) for shape in (seen.shape[:3], value.shape[:3]))
    return Call(query, key, value, seen, causal=False, scaling=1.0, softcap=None, bias=None)
