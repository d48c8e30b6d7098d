"""How many tokens to explain at once, and what to do when they do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from dexar_fast.errors import OutOfMemoryError
from dexar_fast.model.modules import below

BUDGET = 256 * 2**20  # bytes beyond weights, KV cache and results
LARGEST_CHUNK = 512
LARGEST_BATCH = 64
COPIES = 3  # an activation, what autograd saves of it, and its gradient

Result = TypeVar("Result")


def default_chunk(layers: list[nn.Module], held: int = 0) -> int:
    """The largest chunk up to 512 whose layer tail stays within the budget, by the layer's widths.

    Args:
        held: bytes of each token beside those. Scores count for none: the backends score in blocks of a fixed size.
    """
    row = max(COPIES * _width(layer) for layer in layers) + held
    return max(1, min(LARGEST_CHUNK, BUDGET // max(1, row)))  # weights of unknown kinds have no width


def default_batch(model: nn.Module, length: int, rows: int, vocabulary: int) -> int:
    """How many sequences of `length` tokens, with the logits of some rows each, run at once within the budget."""
    return max(1, min(LARGEST_BATCH, BUDGET // (length * _widest(model) + 2 * 4 * rows * vocabulary)))


def row_budget(model: nn.Module) -> int:
    """How many tokens, of whatever sequences, run at once within the budget."""
    return max(1, BUDGET // max(1, _widest(model)))


def _widest(model: nn.Module) -> int:
    return max((_width(layer) for layer in _layers(model)), default=1)


def _layers(model: nn.Module) -> list[nn.Module]:
    """The members of the model's lists of modules."""
    return [layer for each in below(model) if isinstance(each, nn.ModuleList) for layer in each]


def _width(layer: nn.Module) -> int:
    """Bytes of one position's activations in a layer: the output features of all its matrices."""
    weights = {p for module in below(layer) for p in module._parameters.values()}
    return sum(p.shape[-2] * p.element_size() for p in weights if p is not None and p.ndim >= 2)


def halving(run: Callable[[int], Result], size: int, most: int) -> tuple[Result, int]:
    """run(min(size, most)), halving the size while memory runs out. Returns the result and the size that fitted.

    Raises:
        OutOfMemoryError: not even one fits; the message says how much was asked for.
    """
    with fitting("explaining one token at a time"):
        return _halving(run, size, most)


def _halving(run: Callable[[int], Result], size: int, most: int) -> tuple[Result, int]:
    while True:
        try:
            return run(min(size, most)), size
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if min(size, most) == 1:
                raise
            size = min(size, most) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def fitting(what: str) -> Iterator[None]:
    """Turns torch's out-of-memory errors inside the block into an OutOfMemoryError that says how much was asked for."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"{what} does not fit: {_asked_for(error)}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch ran out of memory, of a GPU or of the host."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _asked_for(error: RuntimeError) -> str:
    """The one sentence of torch's message that holds the number."""
    found = re.search(r"[Tt]r(?:ied|ying) to allocate ([\d.]+ ?\w+)", str(error))
    return f"torch could not allocate {found[1]}" if found else str(error).splitlines()[0]
