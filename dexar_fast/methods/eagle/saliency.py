"""How salient each region is: how far the objective has moved until the region is placed."""

from __future__ import annotations

import torch
from torch import Tensor

from dexar_fast.methods.eagle.greedy.result import Curves


def region_saliency(curves: Curves) -> Tensor:
    """[N] float64 by region, from 1 for the first placed to 0 for the last; zeros where nothing changes F.

    The authors count F of the empty picture without the lambdas; here it has them.
    """
    start = curves.weights.objective(curves.empty.double(), curves.full.double())
    return _by_region(curves.order, falling(curves.objective, start))


def token_saliency(curves: Curves) -> Tensor:
    """[n, N] float64 by token and region: the same over each token's own objective, along the common order."""
    objective = curves.weights.of_tokens(curves.insertion.double(), curves.deletion.double()).T
    start = curves.weights.of_tokens(curves.empty.double(), curves.full.double())
    return _by_region(curves.order, falling(objective, start))


def falling(objective: Tensor, start: Tensor) -> Tensor:
    """-(d_1 + ... + d_k), d_k = |F_k - F_{k-1}|, scaled to [0, 1]; zeros where that is constant.

    Args:
        objective: [..., N], F after each place. start: [...], F of the empty picture.
    Returns:
        [..., N] float64 by place.
    """
    values = -walked(objective, start)
    lowest = values[..., -1:]
    span = values[..., :1] - lowest
    return torch.where(span > 0, (values - lowest) / span.where(span > 0, 1), 0)


def walked(objective: Tensor, start: Tensor) -> Tensor:
    """d_1 + ... + d_k of `falling`, [..., N] float64."""
    path = torch.cat([start.double()[..., None], objective.double()], dim=-1)
    return path.diff(dim=-1).abs().cumsum(-1)


def _by_region(order: Tensor, by_place: Tensor) -> Tensor:
    by_region = torch.empty_like(by_place)
    by_region[..., order] = by_place
    return by_region
