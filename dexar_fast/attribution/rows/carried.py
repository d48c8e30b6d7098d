"""Row vectors carried from the top layer down: e_p M_L ... M_1, by blocks of rows of each layer's M_l [S, S]."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dexar_fast.attribution.rows.probabilities import blocks
from dexar_fast.model.attention import Call

Part = tuple[Call, Callable[[slice], Tensor]]  # one forward's call, and M's rows [B, S'] of some of its queries


def carried(rows: Tensor, layer: Iterable[Part]) -> Tensor:
    """rows M: [T, S], of rows [T, S] and the M of a layer, whose queries ran in one forward or several."""
    found = torch.zeros_like(rows)
    for call, matrix in layer:
        keys, queries = call.key.shape[2], call.query.shape[2]
        weights = rows[:, keys - queries : keys]
        for block in blocks(call, slice(0, queries)):
            mixed = matrix(block)
            found[:, :keys] += (weights[:, block].to(mixed) @ mixed).to(found)
    return found
