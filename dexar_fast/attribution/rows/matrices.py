"""Some rows of one layer's attention, and of its attention times gradient, over heads."""

from __future__ import annotations

import torch
from torch import Tensor

from dexar_fast.attribution.rows.probabilities import probabilities
from dexar_fast.backends.eager import products
from dexar_fast.model.attention import Call


def mean_attention(call: Call, rows: slice) -> Tensor:
    """mean_h A[h, r, j] of R of the call's queries: [R, S], float32 or better."""
    return probabilities(call, rows).mean(0)


def attention_gradient(call: Call, rows: slice, gradient: Tensor) -> Tensor:
    """A[h, r, j] dA[h, r, j], dA = <gradient[r, h], V[k(h), j]>, not rectified: [H, R, S], float32 or better.

    Args:
        gradient: [R, H, D_v], of some value with respect to the attention output of these queries.
    """
    weights = probabilities(call, rows)
    return weights * products(gradient.to(weights.dtype), call.value[0].to(weights.dtype))


def net_gradient(call: Call, rows: slice, gradient: Tensor) -> Tensor:
    """relu(sum_h A dA): [R, S]. Heads that speak against a key count against it."""
    return attention_gradient(call, rows, gradient).sum(0).relu()


def positive_gradient(call: Call, rows: slice, gradient: Tensor) -> Tensor:
    """mean_h relu(A dA): [R, S]. Heads that speak against a key are left out."""
    return attention_gradient(call, rows, gradient).relu().mean(0)


class VisualMaps:
    """Adds up the visual columns of rows over layers: maps [T, N] of T tokens, float32 or better."""

    def __init__(self, tokens: int, visual: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        self._visual = visual.to(device)
        dtype = torch.promote_types(dtype, torch.float32)
        self.token_maps = torch.zeros(tokens, len(visual), dtype=dtype, device=device)

    def add(self, tokens: slice, rows: Tensor) -> None:
        """Adds rows [R, S] of some of the tokens."""
        self.token_maps[tokens] += rows.to(self.token_maps)[:, self._visual]
