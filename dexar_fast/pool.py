"""One pool of slots for the keys and values of a model, and rows of tokens that lie in it.

The pool outlives the caches over it: what one has computed and named is found by the next. Where tokens lie is decided
by the books (csrc/kv_cache.h); here are the tensors.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from dexar_fast._C import KvCache
from dexar_fast.errors import CacheError, InputError
from dexar_fast.session import borrowed

BLOCK_SIZE = 16
Keys = NDArray[np.uint64]  # one name a position
NO_KEYS: Keys = np.empty(0, np.uint64)


class KVPool:
    """Room for the keys and values of `slots` tokens of one model, and the books of who holds them.

    Layers are allocated at their first use, with the dtype and on the device of the states they are given. A pool may
    be used from several threads, on one stream of each device.

    Args:
        slots: tokens, of all sequences and cached prefixes together; rounded up to whole blocks. For a budget in bytes
            see `for_model`.
        block_size: tokens that are shared or evicted together.
    """

    def __init__(self, slots: int, block_size: int = BLOCK_SIZE) -> None:
        blocks = -(-slots // block_size)
        self.books = KvCache(blocks, block_size)
        self.slots = blocks * block_size
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}  # keys [H_kv, slots, D] and values [H_kv, slots, D_v]
        self._allocating = threading.Lock()

    @classmethod
    def for_model(cls, model: Any, budget: int, block_size: int = BLOCK_SIZE) -> Self:
        """A pool of as many whole blocks as fit in `budget` bytes; never more is allocated.

        Raises:
            InputError: not even one block fits.
        """
        block = block_size * bytes_per_token(model)
        if budget < block:
            raise InputError(f"a pool for this model takes at least {block:,} bytes, one block: not {budget:,}")
        return cls(budget // block * block_size, block_size)

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's tensors, for states [B, H_kv, Q, D].

        Raises:
            CacheError: the pool holds another model's layers.
        """
        with self._allocating, torch.inference_mode(False):
            if index not in self.layers:
                self.layers[index] = self._allocate(key), self._allocate(value)
        for tensor, states in zip(self.layers[index], (key, value), strict=True):
            if _kind(tensor) != _kind(states[0]):
                raise CacheError(f"the pool holds another model: {_kind(tensor)} is not {_kind(states[0])} as given")
        return self.layers[index]

    def _allocate(self, states: Tensor) -> Tensor:
        _, heads, _, width = states.shape
        return torch.empty(heads, self.slots, width, dtype=states.dtype, device=states.device)

    @torch.no_grad()
    def copy(self, copies: list[tuple[int, int, int]]) -> None:
        """Copies slots (from, to, count) in every layer."""
        for source, target, count in copies:
            for layer in self.layers.values():
                for tensor in layer:
                    tensor[:, target : target + count] = tensor[:, source : source + count]


@torch.no_grad()
def bytes_per_token(model: Any) -> int:
    """What a model caches of one token: found by running one, for no config tells it of every family.

    Widths of heads differ between layers in some, others share the keys of one layer among several.
    """
    cache = DynamicCache()
    token = torch.zeros(1, 1, dtype=torch.long, device=None if model.device.type == "meta" else model.device)
    with borrowed(model):
        model.get_decoder()(input_ids=token, past_key_values=cache, use_cache=True)
    return sum(states.nbytes for layer in cache.layers if layer.is_initialized for states in (layer.keys, layer.values))


def _kind(states: Tensor) -> tuple[int, int, torch.dtype, torch.device]:
    """Heads, width, dtype, device."""
    return states.shape[0], states.shape[-1], states.dtype, states.device


class Rows:
    """The sequences of one batch, all of one length. They return to the pool with `close()`, or as garbage."""

    def __init__(self, pool: KVPool, reserve: int) -> None:
        self.pool = pool
        self.reserve = reserve  # tokens to keep room for in each
        self.length = 0
        self.starts: list[int] = []  # the first slot of each
        self._ids: list[int] = []  # of the books
        weakref.finalize(self, _close, pool.books, self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def open(self, keys: Keys = NO_KEYS) -> None:
        """One more row: the longest known prefix of the keys."""
        row, start, self.length, copies = self.pool.books.open(keys, self.reserve)
        self._ids.append(row)
        self.starts.append(start)
        self.pool.copy(copies)

    def grow(self, batch: int, length: int) -> None:
        """Has each of `batch` rows hold `length` slots, or changes nothing and raises."""
        if length <= self.length and len(self) == batch:
            return
        while self.length == 0 and len(self) < batch:
            self.open()
        if len(self) != batch:
            raise InputError(f"the cache has {len(self)} rows and the forward {batch}: use a cache of its own for each")
        for index in range(batch):
            try:
                self._extend(index, length - self.length)
            except CacheError:
                self._truncate(self._ids[:index], self.length)
                raise
        self.length = length

    def _extend(self, index: int, count: int) -> None:
        _, self.starts[index], _, copies = self.pool.books.extend(self._ids[index], count)
        self.pool.copy(copies)

    def truncate(self, length: int) -> None:
        """Drops every token from position `length` on."""
        self.length = min(self.length, length)
        self._truncate(self._ids, self.length)

    def _truncate(self, ids: list[int], length: int) -> None:
        for row in ids:
            self.pool.books.truncate(row, length)

    def commit(self, keys: Keys) -> None:
        """Names positions [0, len(keys)) of the only row."""
        (row,) = self._ids
        *_, named = self.pool.books.span(row)
        self.pool.books.commit(row, keys[named:])

    def select(self, chosen: Sequence[int]) -> None:
        """Becomes these of its rows: a row goes on where it is first chosen, and is forked where it is chosen again."""
        left = dict(enumerate(self._ids))
        self._ids[:] = [left.pop(i, 0) or self.pool.books.fork(self._ids[i]) for i in chosen]
        self.starts = [self.starts[i] for i in chosen]
        _close(self.pool.books, list(left.values()))

    def fork(self) -> Rows:
        """Other rows of the same tokens, in the same slots; of two, the second to grow is moved."""
        other = Rows(self.pool, self.reserve)
        other._ids += [self.pool.books.fork(row) for row in self._ids]
        other.starts, other.length = list(self.starts), self.length
        return other

    def close(self) -> None:
        """Gives everything back; what was named may still be found."""
        _close(self.pool.books, self._ids)
        self.starts, self.length = [], 0

    def write(self, tensor: Tensor, begin: int, states: Tensor) -> None:
        """Puts states [B, H_kv, Q, D] at position `begin` of the rows."""
        end = begin + states.shape[2]
        for start, state in zip(self.starts, states.detach(), strict=True):
            tensor[:, start + begin : start + end] = state

    def read(self, tensor: Tensor, end: int) -> Tensor:
        """Tokens [0, end) of a layer's [H_kv, slots, D] as [B, H_kv, end, D]: a view of rows that are evenly spaced."""
        first = self.starts[0]
        if len(self.starts) == 1:
            return tensor[None, :, first : first + end]
        step = self.starts[1] - first
        if step >= 0 and all(b - a == step for a, b in pairwise(self.starts)):
            heads, slot, column = tensor.stride()
            size = (len(self.starts), tensor.shape[0], end, tensor.shape[2])
            return tensor.as_strided(size, (step * slot, heads, slot, column), first * slot)
        return torch.stack([tensor[:, start : start + end] for start in self.starts])


def _close(books: KvCache, ids: list[int]) -> None:
    while ids:
        books.close(ids.pop())
