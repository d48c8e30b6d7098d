"""The pass (METHOD.md section 7) with rows of each layer's attention in the place of DEX-AR's scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.attribution.rows.matrices import VisualMaps
from dexar_fast.attribution.rows.probabilities import last
from dexar_fast.attribution.tails.trust import Tails
from dexar_fast.backends.operands import HeadGroups, Keys
from dexar_fast.methods.base import Asked
from dexar_fast.model.attention import Call

Rows = Callable[[Call, slice, Tensor], Tensor]
"""From a layer's call, R of its queries and their u [R, H, D] to the rows [R, S] that it adds to the maps."""


class LayersOfChunk:
    """Adds up the layers of one chunk."""

    def __init__(self, visual: Tensor, rows: Rows) -> None:
        self._visual = visual
        self._rows = rows
        self._maps: VisualMaps | None = None

    def layer(self, u: Tensor, call: Call, keys: Keys | HeadGroups) -> None:
        if self._maps is None:
            self._maps = VisualMaps(len(u), self._visual, u.device, u.dtype)
        for tokens, rows in last(call, slice(0, len(u))):
            self._maps.add(tokens, self._rows(call, rows, u[tokens]))

    def settle(self) -> None:
        """Nothing waits."""

    def attribution(self, length: int) -> VisualMaps:
        assert self._maps is not None  # a plan has layers
        return self._maps


def plan_of(
    asked: Asked, layers: list[int], rows: Rows, *, tails: Tails | None = None, differentiates: bool = True
) -> Plan:
    """What the pass computes for a request, whatever the length of its answer."""
    prompt = asked.inputs["input_ids"].shape[1]
    return Plan(
        prompt=prompt,
        layers=layers,
        visual=asked.visual,
        text=torch.zeros(prompt, dtype=torch.bool, device="cpu"),  # no scores of text
        sums=lambda: LayersOfChunk(asked.visual, rows),
        backend=asked.backend,
        double_final_norm=False,
        inputs=asked.inputs,
        tails=tails,
        against=asked.against,
        differentiates=differentiates,
    )
