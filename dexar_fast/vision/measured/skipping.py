"""The blocks of a vision tower, left out: without attention they change what a token holds, and not where it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

FORWARD = "forward"

Kind = tuple[Any, ...]  # of blocks that compute alike


class Blocks:
    """Those blocks outside the decoder that return what has the shape of their input. One of each kind tells for all.

    Args:
        layers: of the decoder.
    """

    def __init__(self, model: nn.Module, layers: nn.ModuleList) -> None:
        stacks = [each for each in model.modules() if isinstance(each, nn.ModuleList) and each is not layers]
        self._blocks = {block: _kind(block) for stack in stacks if _are_alike(stack) for block in stack}
        self._alike: dict[Kind, Callable[[Tensor], Any] | None] = {}  # what is returned for an input; None: it runs

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Inside it those return their input."""
        own = {block: vars(block)[FORWARD] for block in self._blocks if FORWARD in vars(block)}
        try:
            for block, kind in self._blocks.items():
                # Set past __setattr__: that of a bridge of TransformerLens sets the block inside it too.
                vars(block)[FORWARD] = partial(self._passing, kind, block.forward)
            yield
        finally:
            for block in self._blocks:
                vars(block).pop(FORWARD, None)
                vars(block).update({FORWARD: own[block]} if block in own else {})

    def _passing(self, kind: Kind, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        hidden = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        if kind not in self._alike:
            self._alike[kind] = _of_like_shape(hidden, run(*args, **kwargs))
        alike = self._alike[kind]
        return run(*args, **kwargs) if alike is None else alike(hidden)


def _are_alike(stack: nn.ModuleList) -> bool:
    return len(stack) > 1 and len({type(each) for each in stack}) == 1


def _kind(block: nn.Module) -> Kind:
    return type(block), *((name, parameter.shape) for name, parameter in block.named_parameters())


def _of_like_shape(hidden: Tensor, output: Any) -> Callable[[Tensor], Any] | None:
    """What makes such an output of another input; None where it has another shape, or others beside it."""
    first, *others = output if isinstance(output, tuple) else (output,)
    if not isinstance(first, Tensor) or first.shape != hidden.shape or any(isinstance(o, Tensor) for o in others):
        return None
    return partial(_first_of, others) if isinstance(output, tuple) else _itself


def _itself(hidden: Tensor) -> Tensor:
    return hidden


def _first_of(others: list[Any], hidden: Tensor) -> tuple[Any, ...]:
    return hidden, *others
