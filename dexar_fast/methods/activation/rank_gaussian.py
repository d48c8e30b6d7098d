"""TAM's filter of a map's noise: a mean over the ranks of each neighbourhood, wider where it is rougher."""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 3  # of a neighbourhood
FLAT = 1e-6  # a relative deviation below which only the median has a weight


def rank_gaussian(maps: Tensor) -> Tensor:
    """Filters maps [..., rows, columns] of values >= 0, in their dtype; edges are reflected.

    Of the 9 values of a neighbourhood, in order, the k-th from the median weighs exp(-k^2 / 2 s^2), with
    s = standard deviation / mean. A neighbourhood of mean 0 gives 0, and a constant one its value (TAM's code: NaN).
    """
    values = _neighbourhoods(maps).sort(dim=-1).values.movedim(-1, 0).contiguous()  # short last axes are slow to sum
    mean = values.mean(0)
    spread = ((values - mean).square().mean(0).sqrt() / mean).clamp_min(FLAT)
    ranks = torch.arange(len(values), device=maps.device, dtype=maps.dtype) - len(values) // 2
    weights = (-ranks.square()[:, None] / (2 * spread.square()).flatten()).exp().view_as(values)
    filtered = (values * weights).sum(0) / weights.sum(0)
    return torch.where(mean == 0, 0, filtered)


def _neighbourhoods(maps: Tensor) -> Tensor:
    """[..., rows, columns, SIDE^2]"""
    rows, columns = (_reflected(size, maps.device) for size in maps.shape[-2:])
    padded = maps[..., rows, :][..., columns]
    return padded.unfold(-2, SIDE, 1).unfold(-2, SIDE, 1).flatten(-2)


def _reflected(size: int, device: torch.device) -> Tensor:
    """The indices of an axis with its neighbours on both sides, mirrored at the first and the last: 1, 0, 1, 2, ..."""
    inside = torch.arange(-1, size + 1, device=device).abs()
    return torch.minimum(inside, 2 * (size - 1) - inside).clamp_min(0)
