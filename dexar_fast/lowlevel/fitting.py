"""Whether arrays that were handed in fit each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dexar_fast.errors import InputError

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_alike(**arrays: Any) -> None:
    """Raises InputError unless all are tensors of one of FLOATS, on one device."""
    first = next(iter(arrays))
    for name, x in arrays.items():
        if not isinstance(x, Tensor) or x.dtype not in FLOATS:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
            raise InputError(f"{name} must be a tensor of {known}, not {getattr(x, 'dtype', type(x).__name__)}")
        if (x.dtype, x.device) != (arrays[first].dtype, arrays[first].device):
            raise InputError(
                f"{name} is {x.dtype} on {x.device}, and {first} {arrays[first].dtype} on {arrays[first].device}: "
                "cast and move one of them"
            )


def check_kind(name: str, x: Any, kind: type) -> None:
    """Raises InputError for what is of another class."""
    if not isinstance(x, kind):
        raise InputError(f"{name} must be of class {kind.__name__}, not {type(x).__name__}")


def check_shape(name: str, x: Tensor, *sizes: int | None) -> None:
    """Raises InputError unless a tensor has these sizes; None stands for any."""
    if x.ndim != len(sizes) or any(size not in (None, own) for size, own in zip(sizes, x.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        raise InputError(f"{name} must be [{wanted}], not {list(x.shape)}")
