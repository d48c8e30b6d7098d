"""The last layer behind its attention, for the rows whose logits count: nothing reads the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from dexar_fast.model.decoder import Decoder, hidden_states

Wanted = Tensor | slice  # [n] rows, or those from one to another
_wanted: ContextVar[tuple[Wanted, int, int] | None] = ContextVar("dexar_fast_last_rows", default=None)


def ends_there(decoder: Decoder) -> bool:
    """Whether the decoder's last layer is the last that attends, and runs once: none behind it reads other rows."""
    return decoder.indices[-1] == decoder.total - 1 and decoder.layers.count(decoder.layers[-1]) == 1


@contextmanager
def narrowing(decoder: Decoder) -> Iterator[None]:
    """Inside the block the last layer's matrices take the rows that a thread wants, of a decoder that ends there."""
    with ExitStack() as stack:
        for module in _behind_attention(decoder):
            stack.callback(module.register_forward_pre_hook(_take).remove)
            stack.callback(module.register_forward_hook(_put_back).remove)
        yield


@contextmanager
def wanting(rows: Wanted, length: int) -> Iterator[None]:
    """This thread's forwards over `length` positions need these n rows of the last layer; others hold no values."""
    count = len(rows) if isinstance(rows, Tensor) else rows.stop - rows.start
    token = _wanted.set((rows, count, length) if count < length else None)
    try:
        yield
    finally:
        _wanted.reset(token)


def _behind_attention(decoder: Decoder) -> list[nn.Module]:
    """The parts of the last layer that hold matrices and no attention."""
    attention = decoder.attentions[-1]
    return [
        part
        for part in decoder.layers[-1].children()
        if attention not in part.modules() and any(weight.ndim > 1 for weight in part.parameters())
    ]


def _take(module: nn.Module, args: Any) -> Any:
    rows, _, length = _wanted.get() or (None, 0, 0)
    if rows is None or not args or args[0].shape[1:-1] != (length,):
        return None
    return args[0][:, _at(rows, args[0])], *args[1:]


def _put_back(module: nn.Module, args: Any, output: Any) -> Any:
    rows, count, length = _wanted.get() or (None, 0, 0)
    if rows is None or not args or args[0].shape[1:-1] != (count,):
        return None
    found = hidden_states(output)
    whole = found.new_zeros(len(found), length, found.shape[-1])
    whole[:, _at(rows, found)] = found
    return (whole, *output[1:]) if isinstance(output, tuple) else whole


def _at(rows: Wanted, hidden: Tensor) -> Wanted:
    """The rows, where these hidden states are: a layer may be on another device than the ids."""
    return rows.to(hidden.device) if isinstance(rows, Tensor) else rows
