"""A transformers Cache over a pool: tokens are appended in place, with no reallocation and no copy of old ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from dexar_fast.errors import InputError
from dexar_fast.kvcache.cache_layer import CountingLayer
from dexar_fast.kvcache.pool import Keys, KVPool, Rows


class PoolCache(Cache):
    """For `model(cache=PoolCache(pool))` and generate(): equal to a DynamicCache, for inference.

    Before transformers 5.24 the keyword is `past_key_values`.

    Every key is kept, those of sliding-window layers too: the mask makes the window. One sequence is a strided view of
    the pool [1, H_kv, S, D]. So are rows of a batch while they are evenly spaced; else they are gathered. The slots
    return to the pool with `reset()`, at the end of a `with` block, or when the cache is garbage.

    Args:
        pool: the pool of one model.
        keys: [P] names of the prompt's positions, batch 1: the cache begins with their longest known prefix, without
            the last token, which must run. None begins empty. Equal names must mean equal keys and values: those of
            one text, one set of images, and one state of one model. Give `naming.of_state(naming.position_keys(
            model.config, inputs), weights.state(model))`, both for a new cache and to `commit`.
        reserve: tokens to keep room for in each row. More may come, and may cost a move.
        patient: whether it waits, as long as the pool does, for slots that other threads hold. Not while you hold what
            they need to go on, such as the model.
    Raises:
        BudgetExhausted: the pool has no room for the keys or the reserve. A forward may raise it, too; to go on, `crop`
            the cache to the length it had.
    """

    def __init__(self, pool: KVPool, keys: Keys | None = None, reserve: int = 0, *, patient: bool = True) -> None:
        super().__init__(layers=[])
        self._rows = Rows(pool, reserve, patient)
        if keys is not None:
            self._rows.open(keys)
            self._adopt(self._rows.length)

    def __enter__(self) -> PoolCache:
        return self

    def __exit__(self, *_: Any) -> None:
        self.reset()

    def __deepcopy__(self, memo: Any) -> PoolCache:
        return self.fork()

    def fork(self) -> PoolCache:
        """Another cache of the same tokens. Both share their slots until they grow; the second to grow is copied."""
        other = PoolCache(self._rows.pool)
        other._rows = self._rows.fork()
        other._adopt(self.get_seq_length())
        return other

    def commit(self, keys: Keys) -> None:
        """Names positions [0, len(keys)), which have run, so that later caches find them. Batch 1."""
        self._rows.commit(keys)

    def reset(self) -> None:
        """Drops all tokens."""
        self.layers.clear()
        self._rows.close()

    def crop(self, tokens_to_remove: int) -> None:
        """Drops the last tokens; takes minus their number, as transformers does."""
        if tokens_to_remove > 0:
            raise InputError("crop() takes minus the number of tokens to remove; truncate() takes a length")
        self.truncate(max(0, self.get_seq_length() + tokens_to_remove))

    def truncate(self, length: int) -> None:
        """Drops every token from position `length` on."""
        self._rows.truncate(length)
        for layer in self.layers:
            layer.length = min(layer.length, length)  # type: ignore[union-attr]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._rows.select(beam_idx.tolist())

    def batch_select_indices(self, indices: Tensor) -> None:
        self._rows.select(torch.arange(len(self._rows), device="cpu")[indices.cpu()].tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._rows.select([row for row in range(len(self._rows)) for _ in range(repeats)])

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        while len(self.layers) <= layer_idx:
            self.layers.append(PoolLayer(self._rows, len(self.layers)))
        return self.layers[layer_idx].update(key_states, value_states)  # type: ignore[union-attr]

    def _adopt(self, length: int) -> None:
        """Makes the layers as they are when `length` tokens have run."""
        known = self._rows.pool.layers
        if length > 0:
            self.layers += [PoolLayer(self._rows, i, length if i in known else 0) for i in range(max(known) + 1)]


class PoolLayer(CountingLayer):
    """One layer of a PoolCache."""

    def __init__(self, rows: Rows, index: int, length: int = 0) -> None:
        self._rows = rows
        self._index = index
        self.length = length
        self.is_initialized = length > 0
        if self.is_initialized:
            self._keys, self._values = rows.pool.layers[index]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self._keys, self._values = self._rows.pool.layer(self._index, key_states, value_states)
        self.is_initialized = True

    @property
    def keys(self) -> Tensor | None:  # type: ignore[override]
        return self._rows.read(self._keys, self.length) if self.is_initialized else None

    @property
    def values(self) -> Tensor | None:  # type: ignore[override]
        return self._rows.read(self._values, self.length) if self.is_initialized else None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends states [B, H_kv, Q, D]; returns all [B, H_kv, S, D]."""
        first = self.length == 0
        if first:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        self._rows.grow(len(key_states), end)  # the first layer of a forward does it for all
        if first:  # until it held rows, another thread's `KVPool.clear` could free the tensors
            self.lazy_initialization(key_states, value_states)
        self._rows.write((self._keys, self._values), self.length, key_states, value_states)
        self.length = end
        return self._rows.read(self._keys, end), self._rows.read(self._values, end)
