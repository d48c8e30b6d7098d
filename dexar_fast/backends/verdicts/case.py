"""A kernel and the sizes it would run at, rounded up to those that are measured; and the verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ROWS = (16, 64, 512)  # queries; more count as the last
KEYS = (2048, 8192)  # bounds the memory of a measurement: 64 MiB of V with 32 heads of 128 features in bfloat16


@dataclass(frozen=True)
class Case:
    """A kernel that `auto` may take.

    Attributes:
        op: head_score, norm_vjp, gated_vjp, kv_append or kv_copy.
        kernel: the backend, or on the CPU the instruction set.
        device: as torch writes it: cpu, cuda:0.
        dtype: of its operands: bfloat16.
        sizes: of head_score (H, H_kv, D, C, S); of norm_vjp and gated_vjp (features, C); of kv_append (H_kv, D, Q); of
            kv_copy (layers, H_kv, D).
    """

    op: str
    kernel: str
    device: str
    dtype: str
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        return "-".join([self.op, self.kernel, self.dtype, "x".join(map(str, self.sizes))])

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class Verdict:
    """Whether `auto` takes a kernel, and why."""

    taken: bool
    reason: str
    ratio: float  # how many times as fast as what it would replace; 0 where that was not measured
    day: str

    @classmethod
    def read(cls, document: Any) -> Verdict:
        """Of what was kept. Raises TypeError if that is no verdict."""
        verdict = cls(**document)
        if type(verdict.taken) is not bool or type(verdict.ratio) is not float:
            raise TypeError("this is no verdict")
        return verdict


def case_of(op: str, kernel: str, x: Tensor, sizes: tuple[int, ...]) -> Case:
    """For operands like x."""
    return Case(op, kernel, str(x.device), str(x.dtype).removeprefix("torch."), sizes)


def scoring_case(kernel: str, u: Tensor, value: Tensor) -> Case:
    """For u [C, H, D] and value [H_kv, S, D]."""
    queries, heads, dim = u.shape
    sizes = heads, value.shape[0], dim, rounded(queries, ROWS), rounded(value.shape[1], KEYS)
    return case_of("head_score", kernel, u, sizes)


def rows_case(op: str, kernel: str, x: Tensor) -> Case:
    """For x [C, features]."""
    return case_of(op, kernel, x, (x.shape[1], rounded(len(x), ROWS)))


def append_case(kernel: str, key: Tensor) -> Case:
    """For states [1, H_kv, Q, D]."""
    return case_of("kv_append", kernel, key, (key.shape[1], key.shape[3], rounded(key.shape[2], ROWS)))


def copy_case(kernel: str, tensors: Sequence[Tensor]) -> Case:
    """For keys and values [1, H_kv, slots, D] of all layers."""
    return case_of("kv_copy", kernel, tensors[0], (len(tensors) // 2, tensors[0].shape[1], tensors[0].shape[3]))


def rounded(size: int, edges: tuple[int, ...]) -> int:
    """The first edge that is not below; beyond all of them the last."""
    return next((edge for edge in edges if size <= edge), edges[-1])
