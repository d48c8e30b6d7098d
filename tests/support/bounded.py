"""Triton's interpreter, told what a GPU does.

It reads and writes inside the arrays that a kernel was given, and nowhere else; and of NaN and a number the larger, and
the smaller, is the number, unless NaN is to stay (triton 3.7 lets it stay either way).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from torch import Tensor
from torch.utils._pytree import tree_leaves
from triton.runtime.interpreter import interpreter_builder

Span = tuple[int, int]  # first address, and the one behind the last


def bound(monkeypatch: pytest.MonkeyPatch, *kernels: Any) -> None:
    """Has every access of the kernels checked, and NaN lost, until the end of the test."""
    spans: list[Span] = []

    def note(*args: Any, **kwargs: Any) -> None:
        spans[:] = [_span(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]

    def checked(access: Any, mask_at: int) -> Any:
        def checking(ptrs: Any, *args: Any) -> Any:
            _check(ptrs.data[args[mask_at].data], ptrs.get_element_ty().primitive_bitwidth // 8, spans)
            return access(ptrs, *args)

        return checking

    for name, mask_at in (("create_masked_load", 0), ("create_masked_store", 1)):
        monkeypatch.setattr(interpreter_builder, name, checked(getattr(interpreter_builder, name), mask_at))
    for name, of_numbers in (("create_maxnumf", np.fmax), ("create_minnumf", np.fmin)):
        monkeypatch.setattr(interpreter_builder, name, partial(interpreter_builder.binary_op, op=of_numbers))
    for kernel in kernels:
        monkeypatch.setattr(kernel, "pre_run_hooks", [note])


def _span(x: Tensor) -> Span:
    reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1 if x.numel() else 0
    return x.data_ptr(), x.data_ptr() + reach * x.element_size()


def _check(addresses: Any, size: int, spans: list[Span]) -> None:
    inside = np.zeros(addresses.shape, dtype=bool)
    for begin, end in spans:
        inside |= (addresses >= begin) & (addresses + size <= end)
    assert inside.all(), "an access outside of all arrays"
