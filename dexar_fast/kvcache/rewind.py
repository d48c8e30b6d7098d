"""The last tokens of a live KV cache, run again in place, and the cache as it was afterwards, bit for bit.

An answer is explained while generate() goes on with its cache. So nothing is appended and nothing cut off: the tokens
that run again overwrite their slots, which are written back from a copy of these slots alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from dexar_fast.backends import ops
from dexar_fast.kvcache.cache_layer import CountingLayer
from dexar_fast.model.cache import check_rolls_back, is_empty


class RewoundCache(Cache):
    """Another cache as it was at an earlier length; the tokens behind that must run again, and no others.

    Works for caches whose layers hold every key, as `keys` and `values` [1, H_kv, S, D], or nothing: DynamicCache,
    PoolCache.
    `truncate` and the end of a `with` block put back what was overwritten.
    """

    def __init__(self, cache: Any, backend: str = "auto") -> None:
        check_rolls_back(cache)
        self._backend = backend
        self._rewound: list[RewoundLayer] = []
        self._kept: list[Kept] = []
        super().__init__(layers=[self._of(layer) for layer in cache.layers])

    def _of(self, layer: Any) -> Any:
        if is_empty(layer):
            return layer
        self._rewound.append(RewoundLayer(layer, self._keep, self._backend))
        return self._rewound[-1]

    def __enter__(self) -> RewoundCache:
        return self

    def __exit__(self, *_: Any) -> None:
        self.put_back()

    def truncate(self, length: int) -> None:
        """Makes this the cache as it was at `length` tokens."""
        self.put_back()
        for layer in self._rewound:
            layer.length = length

    @torch.no_grad()
    def _keep(self, start: int, stop: int) -> None:
        """Keeps what all layers hold in some slots, before the first of them overwrites those."""
        if any(kept.start <= start and stop <= kept.stop for kept in self._kept):
            return
        layers = [(layer.keys, layer.values) for layer in self._rewound if layer.keys.shape[2] >= stop]
        read = [(keys[:, :, start:stop], values[:, :, start:stop]) for keys, values in layers]
        held = [(torch.empty_like(keys), torch.empty_like(values)) for keys, values in read]
        ops.kv_append_all(held, read, 0, backend=self._backend)
        self._kept.append(Kept(start, stop, layers, held))

    @torch.no_grad()
    def put_back(self) -> None:
        """Writes back what `update` has overwritten."""
        while self._kept:
            kept = self._kept.pop()
            ops.kv_append_all(kept.layers, kept.held, kept.start, backend=self._backend)


@dataclass(frozen=True)
class Kept:
    """What layers held in the slots from `start` to `stop`."""

    start: int
    stop: int
    layers: list[ops.Pair]  # [1, H_kv, S, D] each
    held: list[ops.Pair]  # [1, H_kv, stop - start, D]


def rewound(cache: Any, backend: str = "auto") -> AbstractContextManager[Any]:
    """A cache that generate() goes on with, to be rewound inside the block; without one, nothing is."""
    return nullcontext() if cache is None else RewoundCache(cache, backend)


class RewoundLayer(CountingLayer):
    """One layer of a RewoundCache.

    Args:
        keep: called with the slots that are to be overwritten.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, layer: Any, keep: Callable[[int, int], None], backend: str) -> None:
        super().__init__()
        self.keys, self.values = layer.keys, layer.values
        self.is_initialized = layer.is_initialized
        self.length = layer.get_seq_length()
        self._keep = keep
        self._backend = backend

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise AssertionError("a layer that has not run is run again")

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Overwrites the next Q tokens by states [1, H_kv, Q, D]; returns all up to them."""
        start, self.length = self.length, self.length + key_states.shape[2]
        assert self.length <= self.keys.shape[2]
        self._keep(start, self.length)
        states = key_states.detach(), value_states.detach()
        ops.kv_append(self.keys, self.values, *states, start, backend=self._backend)
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]
