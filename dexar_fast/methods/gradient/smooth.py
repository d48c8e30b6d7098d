"""SmoothGrad: the gradient at the visual embeddings, averaged over noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from dexar_fast.methods import knobs
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.gradient.entry import Change
from dexar_fast.methods.gradient.forward import maps_of, recorded
from dexar_fast.methods.gradient.plain import LENGTH, length

_NOTES = (
    f"{LENGTH} The gradient is the mean over copies of the embeddings with noise.",
    "It says how fast the logit changes with a patch, up or down, near the picture; other noise, another map.",
)


@dataclass(frozen=True)
class SmoothGrad:
    """map[t, j] = | mean_s d o[v_t] / d x_j at x + e_s |_2, e_s Gaussian (arXiv 1706.03825, on embeddings).

    Attributes:
        samples: how many e_s: one forward each, and T backwards.
        noise: their standard deviation, as a share of the range of the embeddings.
        seed: of them.
    Raises:
        InputError: no samples, noise below 0, or a seed that is none.
    """

    name: ClassVar[str] = "smoothgrad"
    contrasts: ClassVar[bool] = True
    samples: int = 8
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        knobs.whole("samples", self.samples, 1)
        knobs.real("noise", self.noise)
        knobs.seed(self.seed)

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N], at least 0. Raises as `forward.recorded`."""
        generator = torch.Generator().manual_seed(int(self.seed))
        runs = (_wide(recorded(asked, self._noisy(generator)).gradients()) for _ in range(self.samples))
        return maps_of(asked, [length(each) / self.samples for each in reduce(_added, runs)], _NOTES)

    def _noisy(self, generator: torch.Generator) -> Change:
        def change(number: int, values: Tensor) -> Tensor:
            noise = torch.randn(values.shape, generator=generator, dtype=torch.float64).to(values)
            return values + float(self.noise) * (values.max() - values.min()) * noise

        return change


def _wide(gradients: Iterable[list[Tensor]]) -> list[list[Tensor]]:
    """In float32 or better: a sum of many in half precision stops growing."""
    return [[each.to(torch.promote_types(each.dtype, torch.float32)) for each in token] for token in gradients]


def _added(total: list[list[Tensor]], more: list[list[Tensor]]) -> list[list[Tensor]]:
    """The gradients of T tokens at each leaf."""
    return [[a + b for a, b in zip(*token, strict=True)] for token in zip(total, more, strict=True)]
