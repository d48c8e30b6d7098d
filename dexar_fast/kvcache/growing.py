"""A pool in the place of a smaller one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dexar_fast._C import BudgetExhausted
from dexar_fast.kvcache import weights
from dexar_fast.kvcache.cache import PoolCache
from dexar_fast.kvcache.naming import of_state
from dexar_fast.kvcache.pool import Keys, KVPool
from dexar_fast.model.lending.session import borrowed


def grown(pool: KVPool, slots: int, model: Any, keys: Keys, arguments: Mapping[str, Any] | None = None) -> KVPool:
    """A pool of so many slots that begins with what another knows of a prompt.

    Args:
        keys: [S] of `naming.position_keys`: of the positions that may be known. arguments: further ones of the model's
            forward.
    """
    larger = KVPool(slots, backend=pool.backend)
    with borrowed(model):
        keys = of_state(keys, weights.state(model, arguments))
    with suppress(BudgetExhausted), PoolCache(pool, keys) as known, PoolCache(larger) as taken:
        layers: list[Any] = known.layers
        for index, layer in enumerate(layers):
            if layer.get_seq_length() > 0:
                taken.update(layer.keys, layer.values, index)
        if layers:
            taken.commit(keys[: known.get_seq_length()])
    return larger
