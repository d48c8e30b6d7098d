"""Integrated gradients along a line from embeddings that show nothing to those of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dexar_fast.methods import knobs
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.gradient.entry import Change
from dexar_fast.methods.gradient.forward import maps_of, recorded
from dexar_fast.methods.gradient.plain import product

Baseline = Literal["mean", "zero"]

_STARTS = {"mean": "the mean embedding of the picture's own patches", "zero": "0"}
_NOTE = (
    "Map value of a patch, in logits: its share of the change of the token's logit on the way from {} to the picture's "
    "embeddings, 0 where negative."
)
_LIMIT = "The way leads through embeddings that no picture has; another start gives other shares."


@dataclass(frozen=True)
class IntegratedGradients:
    """map[t, j] = relu( < x_j - b_j, mean_s d o[v_t] / d x_j at b + (s - 1/2) / steps (x - b) > ), s = 1 .. steps.

    Before relu the values of a token add up to o[v_t](x) - o[v_t](b), but for what so few steps leave out:
    `diagnostics["left_out"]` has that for each token, as a share of this change (arXiv 1703.01365).

    Attributes:
        steps: of the midpoint rule: one forward each, and T backwards.
        baseline: b, the embedding of every visual token. "mean": of the request's own, as where a token is hidden
            (`fill="tokens"` of the metrics); "zero": 0.
    Raises:
        InputError: no steps, or another baseline.
    """

    name: ClassVar[str] = "integrated-gradients"
    contrasts: ClassVar[bool] = True
    steps: int = 16
    baseline: Baseline = "mean"

    def __post_init__(self) -> None:
        knobs.whole("steps", self.steps, 1)
        knobs.one_of("baseline", self.baseline, _STARTS)

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N], at least 0. Raises as `forward.recorded`."""
        ends = [recorded(asked, self._along(share)) for share in (0.0, 1.0)]
        way = [there.detach() - here.detach() for here, there in zip(*(end.leaves for end in ends), strict=True)]
        shares = torch.stack([self._shares(asked, way, step) for step in range(self.steps)]).mean(0)
        change = (ends[1].logits - ends[0].logits).detach().to(shares)
        left_out = (change - shares.sum(1)).abs() / change.abs().clamp_min(torch.finfo(shares.dtype).tiny)
        notes = _NOTE.format(_STARTS[self.baseline]), _LIMIT
        return maps_of(asked, shares.relu().unbind(), notes, left_out=left_out.tolist())

    def _shares(self, asked: Asked, way: list[Tensor], step: int) -> Tensor:
        """[T, N]: what each embedding would change each logit by if all steps were like this one."""
        found = recorded(asked, self._along((step + 0.5) / self.steps))
        return torch.stack([product(way, gradients) for gradients in found.gradients()])

    def _along(self, share: float) -> Change:
        """What goes a share of the way."""

        def change(number: int, values: Tensor) -> Tensor:
            start = values.mean(0, keepdim=True) if self.baseline == "mean" else torch.zeros_like(values[:1])
            return start + share * (values - start)

        return change
