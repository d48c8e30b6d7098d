"""The search of iGOS++ for the masks of a picture that destroy what is said of it, and those that restore it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from dexar_fast.methods.masked.blending import Blending

STEP = 10.0
L1, TOTAL_VARIATION, L2 = 1.0, 10.0, 0.1  # weights of what keeps masks few and smooth
FINE = 8  # pixels of the total variation across a cell of a mask
EDGE = 0.01  # squared difference of neighbours that makes an edge, of pixels in CLIP's deviations
DEVIATION = 0.27

Score = Callable[[dict[str, Tensor]], Tensor]
"""From processed pixels to a log-probability, in the graph."""


@dataclass(frozen=True)
class MaskSearch:
    """Lowers the loss of `IgosPp` for a deletion mask and an insertion mask, together [2, side, side]."""

    blend: Blending
    edges: tuple[Tensor, Tensor]  # of the picture, see `edges_of`
    side: int
    steps: int
    iterations: int
    noise: float
    swaps: bool  # whether the insertion mask hides the picture from the other, as in the paper
    seed: int

    def map(self, score: Score) -> Tensor:
        """[side, side] in [0, 1]: 1 where both masks hide most."""
        generator = torch.Generator().manual_seed(self.seed)
        masks, last, l2 = torch.ones(2, self.side, self.side), torch.zeros(()), L2
        for i in range(self.iterations):
            l2 *= exp(-i)
            ahead = masks - STEP * self._slope(score, masks.requires_grad_(), l2, generator)
            masks, last = (ahead + i / (i + 5) * (ahead - last)).clamp(0, 1).detach(), ahead.detach()
        hidden = 1 - masks[0] * masks[1]
        return (hidden - hidden.min()) / (hidden.max() - hidden.min()).clamp_min(torch.finfo(hidden.dtype).tiny)

    def _slope(self, score: Score, masks: Tensor, l2: float, generator: torch.Generator) -> Tensor:
        """The gradient of the loss at the masks."""
        deletion, insertion = masks
        (total,) = torch.autograd.grad(regular(deletion * insertion, self.edges, l2), masks, retain_graph=True)
        terms = (
            ((deletion, insertion), False, 1),
            ((deletion, insertion), self.swaps, -1),
            ((deletion,), False, 1),
            ((insertion,), self.swaps, -1),
        )
        for of, swapped, sign in terms:
            for k in range(1, self.steps + 1):
                shown = self.blend(of, k / self.steps, swapped)
                noisy = {name: values + self._noise(values, generator) for name, values in shown.items()}
                total += sign * torch.autograd.grad(score(noisy), masks, retain_graph=True)[0] / self.steps / 2
        return total

    def _noise(self, values: Tensor, generator: torch.Generator) -> Tensor:
        return self.noise * torch.randn(values.shape, generator=generator).to(values)


def edges_of(picture: Image.Image, side: int) -> tuple[Tensor, Tensor]:
    """[S - 1, S] and [S, S - 1] of S = 8 side: near 1 where neighbours in a picture look alike, 0 across an edge."""
    pixels = torch.from_numpy(np.asarray(picture.resize((FINE * side, FINE * side)), np.float32)) / 255 / DEVIATION
    down, across = pixels.diff(dim=0), pixels.diff(dim=1)
    return (-down.mean(-1).square() / EDGE).exp(), (-across.square() / EDGE).exp().mean(-1)


def regular(mask: Tensor, edges: tuple[Tensor, Tensor], l2: float) -> Tensor:
    """What is lower for masks that hide little, smoothly, along the edges of the picture."""
    large = interpolate(mask[None, None], scale_factor=FINE, mode="bilinear", align_corners=False)[0, 0]
    smooth = sum(mask.diff(dim=axis).square().mean() for axis in (0, 1))
    along = sum((edge * large.diff(dim=axis).square()).mean() for axis, edge in enumerate(edges))
    hidden = 1 - mask
    return L1 * hidden.abs().mean() + l2 * hidden.square().sum() + TOTAL_VARIATION * (smooth + along) / 2
