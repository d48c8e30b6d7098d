"""Sums of rows, what they should be, and whether they differ by rounding alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# A relation's result, operands and factors are rounded by half an eps at most, at random. Relative to the sum of both
# sides that is 0.3 eps as a root mean square. Products and means of n terms add sqrt(n) roundings of the dtype they sum
# in. Over tests/support/zoo.py in float32, bfloat16 and float16 no relation takes more than 0.17 of its bound.
ROUNDINGS = 2


class Relation(NamedTuple):
    """Sums [G, 2, n] of the rows of G layers, and what they should be."""

    off: Tensor  # seen minus what they should be
    own: Tensor  # the part of what they should be that the relation computes; the rest is a residual
    seen: Tensor
    bound: float  # of the rounding, relative to both sides

    @classmethod
    def of(cls, seen: Tensor, own: Tensor, eps: float, terms: int, residual: Tensor | None = None) -> Relation:
        """Seen should be own, each number of so many terms, plus a residual; eps: of the rows' dtype."""
        off = seen - own if residual is None else seen - own - residual
        return cls(off, own, seen, ROUNDINGS * eps + torch.finfo(seen.dtype).eps * math.sqrt(terms))


def hold(relations: Sequence[Relation]) -> list[Tensor]:
    """[G] of each: whether a layer is off by its rounding alone; False if anything is not finite."""
    moments = [_moments(relation) for relation in relations]
    device = moments[0].device
    fetched = torch.cat([each.double().flatten().to(device) for each in moments]).cpu()  # one copy, one wait
    split = fetched.split([each.numel() for each in moments])
    return [
        _is_rounding(part.view(each.shape), relation.seen.shape[-1], relation.bound)
        for part, each, relation in zip(split, moments, relations, strict=True)
    ]


def _moments(relation: Relation) -> Tensor:
    """[G, 2, 2, 2] for each row: products of `off` and `own`, each with each, summed over n.

    Both are relative to both sides and to their mean over the features.
    """
    off, own, seen, _ = relation
    size = own.abs() + seen.abs()
    size = (size + size.mean(-1, keepdim=True)).clamp_(min=torch.finfo(size.dtype).tiny)
    both = torch.stack([off, own], 2) / size[:, :, None]
    return both @ both.mT


def _is_rounding(moments: Tensor, n: int, bound: float) -> Tensor:
    """Whether a difference is small as a whole, and along what the relation computes: a residual hides less there."""
    spread, along, length = moments[..., 0, 0] / n, moments[..., 0, 1].abs() / n, moments[..., 1, 1] / n
    hidden = length + (length / n).sqrt()
    return ((spread <= bound**2) & (along <= bound * hidden)).all(-1)
