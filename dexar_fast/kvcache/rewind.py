"""The last tokens of a live KV cache, run again in place, and the cache as it was afterwards, bit for bit.

An answer is explained while generate() goes on with its cache. So nothing is appended and nothing cut off: the tokens
that run again overwrite their slots, which are written back from a copy of these slots alone.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from dexar_fast.kvcache.cache_layer import CountingLayer
from dexar_fast.model.cache import check_rolls_back, is_empty


class RewoundCache(Cache):
    """Another cache as it was at an earlier length; the tokens behind that must run again, and no others.

    Works for caches whose layers hold every key, as `keys` and `values` [1, H_kv, S, D], or nothing: DynamicCache,
    PoolCache.
    `truncate` and the end of a `with` block put back what was overwritten.
    """

    def __init__(self, cache: Any) -> None:
        check_rolls_back(cache)
        self._rewound: list[RewoundLayer] = []
        super().__init__(layers=[self._of(layer) for layer in cache.layers])

    def _of(self, layer: Any) -> Any:
        if is_empty(layer):
            return layer
        self._rewound.append(RewoundLayer(layer))
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
    def put_back(self) -> None:
        """Writes back what `update` has overwritten."""
        for layer in self._rewound:
            layer.put_back()


def rewound(cache: Any) -> AbstractContextManager[Any]:
    """A cache that generate() goes on with, to be rewound inside the block; without one, nothing is."""
    return nullcontext() if cache is None else RewoundCache(cache)


class RewoundLayer(CountingLayer):
    """One layer of a RewoundCache."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.keys, self.values = layer.keys, layer.values
        self.is_initialized = layer.is_initialized
        self.length = layer.get_seq_length()
        self._saved: list[tuple[Tensor, Tensor]] = []  # a stretch of the live tensors, and what it held

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise AssertionError("a layer that has not run is run again")

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Overwrites the next Q tokens by states [1, H_kv, Q, D]; returns all up to them."""
        start, self.length = self.length, self.length + key_states.shape[2]
        pairs = (self.keys, key_states), (self.values, value_states)
        return self._overwritten(*pairs[0], start), self._overwritten(*pairs[1], start)

    def _overwritten(self, live: Tensor | None, states: Tensor, start: int) -> Tensor:
        assert live is not None and self.length <= live.shape[2]
        stretch = live[:, :, start : self.length]
        self._saved.append((stretch, stretch.clone()))
        stretch.copy_(states.detach())
        return live[:, :, : self.length]

    def put_back(self) -> None:
        while self._saved:
            stretch, held = self._saved.pop()
            stretch.copy_(held)
