"""A pool in the place of a smaller one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dexar_fast._C import BudgetExhausted
from dexar_fast.kvcache import weights
from dexar_fast.kvcache.cache import PoolCache
from dexar_fast.kvcache.naming import Pictures, of_state, position_keys
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.model.lending.session import borrowed


def grown(
    pool: KVPool, slots: int, model: Any, inputs: Mapping[str, Any], earlier: Pictures | None, arguments: dict[str, Any]
) -> KVPool:
    """A pool of so many slots that begins with what another knows of a prompt.

    Args:
        earlier: the images of an earlier prompt of the same dialogue. arguments: further ones of the model's forward.
    """
    larger = KVPool(slots, backend=pool.backend)
    with borrowed(model):
        keys = of_state(position_keys(model.config, inputs, earlier), weights.state(model, arguments))
    with suppress(BudgetExhausted), PoolCache(pool, keys) as known, PoolCache(larger) as taken:
        layers: list[Any] = known.layers
        for index, layer in enumerate(layers):
            if layer.get_seq_length() > 0:
                taken.update(layer.keys, layer.values, index)
        if known.get_seq_length() > 0:
            taken.commit(keys[: known.get_seq_length()])
    return larger
