"""Writes keys and values into a pool's slots on a GPU, and copies slots (`reference.kv_append`, `.kv_copy`).

    kv_append:  keys[:, :, start : start + Q] = key;  values[:, :, start : start + Q] = value
    kv_copy:    for each (from, to, n) and layer:  keys[:, :, to : to + n] = keys[:, :, from : from + n];  and values

A copy is an append of what the tensors themselves hold: one kernel for both, and one launch for K and V of all layers
that are alike. csrc/cuda/kv_copy.cu takes all copies in one. With Q or n slots, H_kv heads and D, D_v features of b
bytes, for each layer:

    operations  none
    read        H_kv Q (D + D_v) b, once; and as much written
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from dexar_fast.kernels.layers import of_layer
from torch import Tensor
from triton import cdiv, next_power_of_2

from dexar_fast.backends.slots import Copies, check_append, check_copies

BLOCK = 4096  # elements a program moves
Pair = tuple[Tensor, Tensor]  # of a layer's keys and values


@triton.jit
def _write(
    cache_ptr, states_ptr, start, count, stride_ch, stride_cs, stride_cd, stride_sh, stride_sq, stride_sd,
    DIM: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """BLOCK_Q states of one head into the slots from `start` on."""
    head = tl.program_id(1).to(tl.int64)
    offs_q = tl.program_id(0).to(tl.int64) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    offs_d = tl.arange(0, BLOCK_D).to(tl.int64)
    mask_q, mask_d = offs_q < count, offs_d < DIM
    cells = states_ptr + head * stride_sh + offs_q[:, None] * stride_sq + offs_d[None, :] * stride_sd
    states = tl.load(cells, mask=mask_q[:, None] & mask_d[None, :])  # [BLOCK_Q, BLOCK_D]
    cells = cache_ptr + head * stride_ch + (start + offs_q)[:, None] * stride_cs + offs_d[None, :] * stride_cd
    tl.store(cells, states, mask=mask_q[:, None] & mask_d[None, :])


@triton.jit(do_not_specialize=["start", "count"])
def append_kernel(
    keys_ptrs,
    values_ptrs,
    key_ptrs,
    value_ptrs,
    start,
    count,
    stride_kch,
    stride_kcs,
    stride_kcd,
    stride_vch,
    stride_vcs,
    stride_vcd,
    stride_kh,
    stride_kq,
    stride_kd,
    stride_vh,
    stride_vq,
    stride_vd,
    DIM_K: tl.constexpr,
    DIM_V: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Of a layer keys where the third program id is even, values where it is odd."""
    layer = tl.program_id(2) // 2
    if tl.program_id(2) % 2 == 0:
        _write(
            of_layer(keys_ptrs, layer), of_layer(key_ptrs, layer), start, count, stride_kch, stride_kcs, stride_kcd,
            stride_kh, stride_kq, stride_kd, DIM_K, BLOCK_Q, BLOCK_K,
        )  # fmt: skip
    else:
        _write(
            of_layer(values_ptrs, layer), of_layer(value_ptrs, layer), start, count, stride_vch, stride_vcs, stride_vcd,
            stride_vh, stride_vq, stride_vd, DIM_V, BLOCK_Q, BLOCK_V,
        )  # fmt: skip


def blocks(count: int, dim_k: int, dim_v: int) -> dict[str, int]:
    """Sizes of a launch: whole heads, and one slot a program if there is only one, as in every decode step."""
    block_k, block_v = next_power_of_2(dim_k), next_power_of_2(dim_v)
    rows = 1 if count == 1 else max(1, BLOCK // max(block_k, block_v))
    return {"DIM_K": dim_k, "DIM_V": dim_v, "BLOCK_Q": rows, "BLOCK_K": block_k, "BLOCK_V": block_v}


def kv_append(keys: Tensor, values: Tensor, key: Tensor, value: Tensor, start: int) -> None:
    """`reference.kv_append` on the device of its arguments, in any dtype and strides.

    Raises:
        InputError: states that do not fit in the slots.
    """
    check_append(keys, values, key, value, start)
    _append([(keys, values, key, value)], start)


def kv_append_all(layers: Sequence[Pair], states: Sequence[Pair], start: int) -> None:
    """The same in the keys and values of several layers: one launch for all that are alike. Raises as `kv_append`."""
    kinds: dict[Any, list[tuple[Tensor, ...]]] = {}
    for (keys, values), (key, value) in zip(layers, states, strict=True):
        check_append(keys, values, key, value, start)
        alike = tuple((x.shape, x.stride(), x.dtype, x.device) for x in (keys, values, key, value))
        kinds.setdefault(alike, []).append((keys, values, key, value))
    for some in kinds.values():
        _append(some, start)


def _append(layers: Sequence[tuple[Tensor, ...]], start: int) -> None:
    (keys, values, key, value), pointers = layers[0], zip(*layers, strict=True)
    (_, heads, count, dim_k), dim_v = key.shape, value.shape[3]
    constants = blocks(count, dim_k, dim_v)
    strides = [stride for x in (keys, values, key, value) for stride in x.stride()[1:]]
    with torch.cuda.device_of(keys):  # Triton launches on the current device
        append_kernel[(cdiv(count, constants["BLOCK_Q"]), heads, 2 * len(layers))](
            *pointers, start, count, *strides, **constants
        )


def kv_copy(layers: Sequence[Pair], copies: Copies) -> None:
    """`reference.kv_copy` of the keys and values of each layer, one launch for each copy in layers that are alike.

    Raises:
        InputError: slots that are not there, or both read and written.
    """
    check_copies([tensor for layer in layers for tensor in layer], copies)
    for source, target, count in copies:
        read = [(keys.narrow(2, source, count), values.narrow(2, source, count)) for keys, values in layers]
        kv_append_all(layers, read, target)
