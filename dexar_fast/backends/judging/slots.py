"""The trials of kv_append and kv_copy: every bit of a pool is compared."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from dexar_fast.backends import cuda, operators
from dexar_fast.backends.judging.trial import Compared, Trial, drawn
from dexar_fast.backends.slots import Copies
from dexar_fast.backends.verdicts.case import Case

SLOTS, START = 1024, 37
COPIES: Copies = ((0, 700, 3), (5, 900, 64))


def appends(case: Case) -> Trial:
    """One layer's states."""
    heads, dim, count = case.sizes
    shapes = [(1, heads, SLOTS, dim)] * 2 + [(1, heads, count, dim)] * 2
    keys, values, key, value = drawn(shapes, case.torch_dtype, torch.device(case.device))

    def checks() -> Iterator[Compared]:
        found, wanted = ((keys.clone(), values.clone()) for _ in range(2))
        operators.kv_append(*found, key, value, START)
        _append(*wanted, key, value)
        for some in zip(found, wanted, strict=True):
            yield Compared(*some, None)

    kernel = partial(operators.kv_append, keys, values, key, value, START)
    return Trial(kernel, partial(_append, keys, values, key, value), checks)


def _append(keys: Tensor, values: Tensor, key: Tensor, value: Tensor) -> None:
    keys.narrow(2, START, key.shape[2]).copy_(key)
    values.narrow(2, START, value.shape[2]).copy_(value)


def copies(case: Case) -> Trial:
    """All layers' slots."""
    layers, heads, dim = case.sizes
    tensors = drawn([(1, heads, SLOTS, dim)] * 2 * layers, case.torch_dtype, torch.device(case.device))
    run = _copied_by_cuda if case.kernel == "cuda" else _copied_by_triton

    def checks() -> Iterator[Compared]:
        found, wanted = ([x.clone() for x in tensors] for _ in range(2))
        run(found)
        _copied(wanted)
        for some in zip(found, wanted, strict=True):
            yield Compared(*some, None)

    return Trial(partial(run, tensors), partial(_copied, tensors), checks)


def _copied(tensors: list[Tensor]) -> None:
    for source, target, count in COPIES:
        for tensor in tensors:
            tensor[:, :, target : target + count] = tensor[:, :, source : source + count]


def _copied_by_cuda(tensors: list[Tensor]) -> None:
    cuda.kv_copy(tensors, COPIES)


def _copied_by_triton(tensors: list[Tensor]) -> None:
    from dexar_fast.kernels import kv_cache

    kv_cache.kv_copy(list(zip(tensors[::2], tensors[1::2], strict=True)), COPIES)
