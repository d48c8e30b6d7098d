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
    values = _neighbourhoods(maps).sort(dim=-1).values
    mean = values.mean(-1, keepdim=True)
    spread = (values.std(-1, correction=0, keepdim=True) / mean).clamp_min(FLAT)
    distance = torch.arange(values.shape[-1], device=maps.device) - values.shape[-1] // 2
    weights = (-(distance**2) / (2 * spread**2)).exp()
    filtered = (values * weights).sum(-1) / weights.sum(-1)
    return torch.where(mean[..., 0] > 0, filtered, torch.zeros_like(filtered))


def _neighbourhoods(maps: Tensor) -> Tensor:
    """[..., rows, columns, SIDE^2]"""
    rows, columns = (_reflected(size, maps.device) for size in maps.shape[-2:])
    padded = maps[..., rows, :][..., columns]
    return padded.unfold(-2, SIDE, 1).unfold(-2, SIDE, 1).flatten(-2)


def _reflected(size: int, device: torch.device) -> Tensor:
    """The indices of an axis with its neighbours on both sides, mirrored at the first and the last: 1, 0, 1, 2, ..."""
    inside = torch.arange(-1, size + 1, device=device).abs()
    return torch.minimum(inside, 2 * (size - 1) - inside).clamp_min(0)
