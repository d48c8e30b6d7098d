"""What a matrix makes of a few random sums: a product of it is checked without reading it again (Freivalds)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

PROBES = 8
BLOCK = 1024  # rows of a matrix that are widened at once

_known: WeakKeyDictionary[nn.Linear, tuple[tuple[Any, ...], Tensor]] = WeakKeyDictionary()


@lru_cache(maxsize=64)
def signs(features: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """R [n, PROBES], of 1 and -1."""
    generator = torch.Generator().manual_seed(features)
    return (2 * torch.randint(2, (features, PROBES), generator=generator, device="cpu") - 1).to(device, dtype)


def probe(linear: nn.Linear, dtype: torch.dtype) -> Tensor:
    """A^T R [in, PROBES] of a matrix A [out, in], kept until another one, or another version of it, takes its place.

    A change through `.data` is no other version: what is kept is then wrong, and so is what is checked by it, until
    `forget`.
    """
    weight = linear.weight
    made_of = id(weight), weight._version, dtype, weight.device
    of, found = _known.get(linear, (None, None))
    if found is None or of != made_of:
        found = _times_signs(weight.detach(), dtype)
        _known[linear] = made_of, found
    return found


def _times_signs(weight: Tensor, dtype: torch.dtype) -> Tensor:
    drawn = signs(weight.shape[0], dtype, weight.device)
    if weight.layout != torch.strided:
        return weight.T.to(dtype) @ drawn
    found = torch.zeros(weight.shape[1], PROBES, dtype=dtype, device=weight.device)
    for rows, some in zip(weight.split(BLOCK), drawn.split(BLOCK), strict=True):
        found.addmm_(rows.T.to(dtype), some)
    return found


def forget(linears: Iterable[nn.Linear]) -> None:
    """The next probes of these read the matrices."""
    for linear in linears:
        _known.pop(linear, None)
