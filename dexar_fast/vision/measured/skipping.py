"""The blocks of a vision tower, left out: without attention they change what a token holds, and not where it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

FORWARD = "forward"


class Blocks:
    """Those blocks outside the decoder that return what has the shape of their input.

    Args:
        layers: of the decoder.
    """

    def __init__(self, model: nn.Module, layers: nn.ModuleList) -> None:
        stacks = [each for each in model.modules() if isinstance(each, nn.ModuleList) and each is not layers]
        self._blocks = [block for stack in stacks if _are_alike(stack) for block in stack]
        self._alike: dict[nn.Module, Callable[[Tensor], Any]] = {}  # what each makes of its input, once it ran

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside it a forward tells which of them can be left out."""
        hooks = [block.register_forward_hook(self._remember, with_kwargs=True) for block in self._blocks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Inside it those return their input."""
        own = {block: vars(block)[FORWARD] for block in self._alike if FORWARD in vars(block)}
        try:
            for block, alike in self._alike.items():
                block.forward = partial(_passing, alike)
            yield
        finally:
            for block in self._alike:
                vars(block).pop(FORWARD, None)
                vars(block).update({FORWARD: own[block]} if block in own else {})

    def _remember(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        first = _hidden(args, kwargs)
        hidden, *others = output if isinstance(output, tuple) else (output,)
        alone = not any(isinstance(each, Tensor) for each in others)
        if isinstance(hidden, Tensor) and hidden.shape == first.shape and alone:
            self._alike[block] = partial(_first_of, others) if isinstance(output, tuple) else _itself


def _are_alike(stack: nn.ModuleList) -> bool:
    return len(stack) > 1 and len({type(each) for each in stack}) == 1


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))


def _passing(alike: Callable[[Tensor], Any], *args: Any, **kwargs: Any) -> Any:
    return alike(_hidden(args, kwargs))


def _itself(hidden: Tensor) -> Tensor:
    return hidden


def _first_of(others: list[Any], hidden: Tensor) -> tuple[Any, ...]:
    return hidden, *others
