"""One pool of slots for the keys and values of a model, and rows of tokens that lie in it.

The pool outlives the caches over it: the next cache finds what one has computed and named. The books (csrc/kv_cache.h)
decide where tokens lie; the tensors are here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NoReturn, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexar_fast.backends import cpu, ops
from dexar_fast.errors import CacheError, ExtensionError, InputError
from dexar_fast.model.cache import to_forward, whole_cache
from dexar_fast.model.lending.session import borrowed

try:
    from dexar_fast._C import KvCache, Row
    from dexar_fast.kvcache.waiting import WAIT, Holders, Taken
except ImportError:
    try:
        cpu.detect()
    except ExtensionError as error:
        raise ExtensionError(f"a KVPool needs the C++ extension, which is {error}") from None

BLOCK_SIZE = 16
Keys = NDArray[np.uint64]  # one name a position
NO_KEYS: Keys = np.empty(0, np.uint64)


class KVPool:
    """Room for the keys and values of `slots` tokens of one model, and the books of who holds them.

    Layers are allocated at their first use, with the dtype and on the device of the states they get. Several threads
    may use a pool, on one stream of each device. The features of the last images are kept, too: some megabytes beyond
    the budget. What an Explainer has put in is found again only while the model computes the same (`weights.state`):
    after a training step, with other weights or with an adapter switched, none of it is found.

    Args:
        slots: tokens, of all sequences and cached prefixes together; rounded up to whole blocks. For a budget in bytes
            see `for_model`.
        block_size: tokens that are shared or evicted together.
        backend: of the writes and copies, as `backends.plan` takes it.
        wait: for how many seconds at most a prompt waits for slots that other threads hold and may free, before it
            raises BudgetExhausted; 0 never waits. An Explainer lends its model to them meanwhile. Where nobody else
            could free room, the error comes at once.

    Raises:
        InputError: `wait` is no number of seconds.
    """

    def __init__(self, slots: int, block_size: int = BLOCK_SIZE, *, backend: str = "auto", wait: float = WAIT) -> None:
        self.backend = backend
        blocks = -(-slots // block_size)
        self.books = KvCache(blocks, block_size)
        self.slots = blocks * block_size
        self.holders = Holders(self.slots, wait)
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}  # keys [1, H_kv, slots, D], values [.., D_v]
        self.features: tuple[Any, Any] = (None, None)  # a name of the last images, and their features
        self._allocating = threading.Lock()

    @classmethod
    def for_model(
        cls, model: Any, budget: int, block_size: int = BLOCK_SIZE, *, backend: str = "auto", wait: float = WAIT
    ) -> Self:
        """A pool of as many whole blocks as fit in `budget` bytes; never more is allocated.

        Raises:
            InputError: not even one block fits, or `wait` is no number of seconds.
        """
        block = block_size * bytes_per_token(model)
        if budget < block:
            raise InputError(f"a pool for this model takes at least {block:,} bytes, one block: not {budget:,}")
        return cls(budget // block * block_size, block_size, backend=backend, wait=wait)

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's tensors, for states [B, H_kv, Q, D].

        Raises:
            CacheError: the pool holds another model's layers, or this one's in another dtype or on another device.
        """
        with self._allocating, torch.inference_mode(False):
            if index not in self.layers:
                self.layers[index] = self._allocate(key), self._allocate(value)
        for tensor, states in zip(self.layers[index], (key, value), strict=True):
            if _kind(tensor) != _kind(states):
                raise CacheError(
                    f"the pool holds keys of {_said(tensor)}, and the model makes {_said(states)}: it is another "
                    "model, or has another dtype or device by now; give it a KVPool of its own"
                )
        return self.layers[index]

    def __reduce__(self) -> NoReturn:
        raise InputError("a KVPool cannot be copied or pickled: it belongs to one process; make one in each")

    @property
    def is_held(self) -> bool:
        """Whether an answer is being written or explained over it."""
        return self.books.stats()["held"] > 0

    def clear(self) -> None:
        """Frees what nobody holds: forgets every prefix and the images' features; what is being explained goes on.

        The tensors of all slots are freed too, if nothing at all is held. The next prompt allocates them anew.
        """
        with self._allocating:
            self.books.clear()
            self.features = (None, None)
            books = self.books.stats()
            if books["sequences"] == books["cached"] == 0:
                self.layers.clear()

    def _allocate(self, states: Tensor) -> Tensor:
        _, heads, _, width = states.shape
        return torch.empty(1, heads, self.slots, width, dtype=states.dtype, device=states.device)

    @torch.no_grad()
    def copy(self, copies: list[tuple[int, int, int]]) -> None:
        """Copies slots (from, to, count) in every layer: those of one call to the books, which never overlap."""
        if not copies:
            return
        devices: dict[torch.device, list[tuple[Tensor, Tensor]]] = {}
        for layer in self.layers.values():
            devices.setdefault(layer[0].device, []).append(layer)
        for layers in devices.values():
            ops.kv_copy(layers, copies, backend=self.backend)


@torch.no_grad()
def bytes_per_token(model: Any) -> int:
    """What a model caches for one token, found by running one: no config says it for every family.

    In some families heads differ in width between layers; in others several layers share the keys of one.
    """
    cache = whole_cache(model.config)
    layers: list[Any] = cache.layers
    token = torch.zeros(1, 1, dtype=torch.long, device=None if model.device.type == "meta" else model.device)
    with borrowed(model):
        decoder = model.get_decoder()
        decoder(input_ids=token, use_cache=True, **to_forward(decoder, cache))
    return sum(states.nbytes for layer in layers for states in (layer.keys, layer.values) if states is not None)


def _kind(states: Tensor) -> tuple[int, int, torch.dtype, torch.device]:
    """Heads, width, dtype, device."""
    return states.shape[1], states.shape[3], states.dtype, states.device


def _said(states: Tensor) -> str:
    heads, width, dtype, device = _kind(states)
    return f"{heads} heads of {width} numbers in {str(dtype).removeprefix('torch.')} on {device}"


class Rows:
    """The sequences of one batch, all of one length. They return to the pool with `close()`, or as garbage.

    Args:
        reserve: tokens to keep room for in each.
        patient: whether they wait for slots that other threads hold.
    """

    def __init__(self, pool: KVPool, reserve: int, patient: bool) -> None:
        self.pool = pool
        self.reserve = reserve
        self.patient = patient
        self.length = 0
        self.starts: list[int] = []  # the first slot of each
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def open(self, keys: Keys = NO_KEYS) -> None:
        """One more row: the longest known prefix of the keys."""
        taken = self._taken(lambda: self.pool.books.row(keys, self.reserve), max(len(keys), self.reserve))
        row, start, self.length, copies = taken
        self.pool.copy(copies)
        self._rows.append(row)
        self.starts.append(start)
        self.pool.holders.add(self)

    def grow(self, batch: int, length: int) -> None:
        """Makes each of `batch` rows hold `length` slots, or changes nothing and raises."""
        if length <= self.length and len(self) == batch:
            return
        while self.length == 0 and len(self) < batch:
            self.open()
        if len(self) != batch:
            raise InputError(f"the cache has {len(self)} rows and the forward {batch}: use a cache of its own for each")
        try:
            for index in range(batch):
                self._extend(index, length - self.length)
        except CacheError:
            self.truncate(self.length)
            raise
        except BaseException:  # Ctrl-C, perhaps before all was copied: nothing is left to go on with
            self._drop()
            raise
        self.length = length
        self.pool.holders.add(self)

    def _extend(self, index: int, count: int) -> None:
        taken = self._taken(lambda: self._rows[index].extend(count), self.length + count)
        self.starts[index], _, copies = taken
        self.pool.copy(copies)

    def _taken(self, take: Callable[[], Taken], slots: int) -> Taken:
        return self.pool.holders.patiently(take, slots) if self.patient else take()

    def truncate(self, length: int) -> None:
        """Drops every token from position `length` on."""
        self.length = min(self.length, length)
        for row in self._rows:
            row.truncate(self.length)

    def commit(self, keys: Keys) -> None:
        """Names positions [0, len(keys)) of the only row."""
        (row,) = self._rows
        row.commit(keys[row.committed() :])

    def select(self, chosen: Sequence[int]) -> None:
        """Keeps the chosen rows, in this order: a row moves to its first place, and is forked for each further one."""
        first = {row: place for place, row in reversed(list(enumerate(chosen)))}
        self._rows = [self._rows[i] if first[i] == place else self._rows[i].fork() for place, i in enumerate(chosen)]
        self.starts = [self.starts[i] for i in chosen]

    def fork(self) -> Rows:
        """Other rows of the same tokens, in the same slots; whichever of the two grows second is moved."""
        other = Rows(self.pool, self.reserve, self.patient)
        other._rows = [row.fork() for row in self._rows]
        other.starts, other.length = list(self.starts), self.length
        self.pool.holders.add(other)
        return other

    def close(self) -> None:
        """Gives everything back; what was named may still be found."""
        self._drop()
        self.length = 0

    def _drop(self) -> None:
        self._rows, self.starts = [], []

    def write(self, layer: tuple[Tensor, Tensor], begin: int, key: Tensor, value: Tensor) -> None:
        """Puts states [B, H_kv, Q, D] of a layer at position `begin` of the rows."""
        states = key.detach(), value.detach()
        if len(self.starts) == 1:  # the common case, every step of a layer, without the loop
            ops.kv_append(*layer, *states, self.starts[0] + begin, backend=self.pool.backend)
            return
        for start, *row in zip(self.starts, *(x.split(1) for x in states), strict=True):
            ops.kv_append(*layer, row[0], row[1], start + begin, backend=self.pool.backend)

    def read(self, tensor: Tensor, end: int) -> Tensor:
        """Tokens [0, end) of a layer's [1, H_kv, slots, D] as [B, H_kv, end, D]: a view if rows are evenly spaced."""
        first = self.starts[0]
        if len(self.starts) == 1:
            return tensor.narrow(2, first, end)
        step = self.starts[1] - first
        if step >= 0 and all(b - a == step for a, b in pairwise(self.starts)):
            _, heads, slot, column = tensor.stride()
            size = (len(self.starts), tensor.shape[1], end, tensor.shape[3])
            return tensor.as_strided(size, (step * slot, heads, slot, column), first * slot)
        return torch.cat([tensor.narrow(2, start, end) for start in self.starts])
