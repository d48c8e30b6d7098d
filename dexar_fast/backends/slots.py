"""Which slots of a pool's tensors may be written and read: checked before a kernel takes their addresses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from dexar_fast.errors import InputError

Copies = Sequence[tuple[int, int, int]]  # slots from, to, count


def check_append(keys: Tensor, values: Tensor, key: Tensor, value: Tensor, start: int) -> None:
    """Checks that states [1, H_kv, Q, D] fit in [1, H_kv, slots, D] from slot `start` on.

    Raises:
        InputError: they do not.
    """
    if key.shape[:3] != value.shape[:3]:
        raise InputError(f"keys {list(key.shape)} and values {list(value.shape)} are not of the same tokens")
    for cache, states in ((keys, key), (values, value)):
        _check_states(cache, states, start)


def _check_states(cache: Tensor, states: Tensor, start: int) -> None:
    if (cache.dtype, cache.device) != (states.dtype, states.device):
        raise InputError(f"slots of {cache.dtype} on {cache.device} cannot hold {states.dtype} on {states.device}")
    (*heads, slots, width), (*rows, count, size) = cache.shape, states.shape
    if len(heads) != 2 or heads[0] != 1 or (heads, width) != (rows, size):
        raise InputError(f"states {list(states.shape)} do not fit in slots {list(cache.shape)}")
    _check_run(start, count, slots)


def check_copies(tensors: Sequence[Tensor], copies: Copies) -> None:
    """Checks that slots can be copied in tensors [1, H_kv, slots, D] of one device, in any order and all at once.

    Raises:
        InputError: a run outside of the slots, slots that are both read and written or written twice, or tensors of
            several devices or lengths.
    """
    if len({(tensor.device, tensor.shape[2]) for tensor in tensors}) != 1:
        raise InputError("slots are copied in tensors of one device and one length")
    for source, target, count in copies:
        _check_run(source, count, tensors[0].shape[2])
        _check_run(target, count, tensors[0].shape[2])
    sources = [(source, source + count) for source, _, count in copies]
    targets = sorted((target, target + count) for _, target, count in copies)
    if any(before[1] > after[0] for before, after in pairwise(targets)):
        raise InputError(f"slots would be written twice: {list(copies)}")
    if any(a < d and c < b for a, b in sources for c, d in targets):
        raise InputError(f"slots would be both read and written: {list(copies)}; copy them one after the other")


def _check_run(start: int, count: int, slots: int) -> None:
    if count < 1 or start < 0 or start + count > slots:
        raise InputError(f"slots {start} to {start + count - 1} are not among slots 0 to {slots - 1}")
