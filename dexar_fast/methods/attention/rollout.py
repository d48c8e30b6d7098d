"""Attention rollout: attention composed over all layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from dexar_fast.attribution.rows.carried import carried
from dexar_fast.attribution.rows.matrices import mean_attention
from dexar_fast.methods.attention.request import all_layers, answer_forward, in_memory, maps_of, unit_rows
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.model.attention import Call

_NOTES = (
    "Map value of a patch: its share of the position that predicts the token, when each layer passes on half of its "
    "attention's mean over heads and half of itself. Over all positions, the text's too, the shares sum to 1.",
    "Values, MLPs and signs do not count. Through many layers the maps of tokens become alike, and early "
    "positions gain.",
)


@dataclass(frozen=True)
class Rollout:
    """map[t, j] = the row of p_t of (A_L + I) / 2 ... (A_1 + I) / 2, A_l the mean over heads (arXiv 2005.00928).

    The T rows are carried from the top layer down through blocks of rows of each A_l: memory O(block x S). One forward
    of prompt and answer, whose queries and keys of all layers are kept. Defined for layers of softmax attention.
    """

    name: ClassVar[str] = "rollout"

    @torch.no_grad()
    def maps(self, asked: Asked) -> Maps:
        layers = all_layers(asked, self.name)
        calls: list[list[Call]] = [[] for _ in layers]

        def take(layer: int, call: Call, output: Tensor, tokens: slice) -> Tensor:
            calls[layer].append(call)
            return output

        with in_memory(self.name):
            answer_forward(asked, layers, take).run()
        rows = unit_rows(asked)
        for of_layer in reversed(calls):
            rows = (rows + carried(rows, [(call, partial(mean_attention, call)) for call in of_layer])) / 2
        return maps_of(asked, rows[:, asked.visual.to(rows.device)], layers, _NOTES)
