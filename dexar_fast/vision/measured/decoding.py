"""From what visual tokens answered to the stripes, to the part of its picture that each of them saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dexar_fast.vision.measured.codes import Signs, stripes

STEPS = 4  # of a stripe: how finely centres are told
WIDTHS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)  # of what a token saw, in stripes
BLOCK = 256  # tokens at once
LEAST = 1e-3  # of the largest answer: what answers less has no place

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What tokens answered to pictures and their inverses.

    Attributes:
        shares: [N, K] of each token and code, how much more white than black it saw, from -1 to 1.
        answered: [N] whether it answered at all.
    """

    shares: Floats
    answered: NDArray[np.bool_]

    @classmethod
    def of(cls, differences: Tensor, white: Tensor) -> Answers:
        """
        Args:
            differences: [K, N, d] of what each picture made and its inverse made.
            white: [N, d] the same of a white and a black picture.
        """
        whole = white.double().square().sum(-1)  # [N]
        values = ((differences.double() * white.double()).sum(-1) / whole.clamp(min=1e-30)).T
        return cls(values.clamp(-1, 1).numpy(), (whole.sqrt() > LEAST * whole.sqrt().max()).numpy())


def places(shares: Floats, bits: int) -> tuple[Floats, Floats]:
    """Centre and width [N] of what each token saw along an axis, in fractions of it.

    Args:
        shares: [N, bits] to the stripes of the axis.
    """
    centres = (np.arange(2**bits * STEPS) + 0.5) / STEPS
    pairs = np.array([(centre, width) for width in WIDTHS for centre in centres])
    expected = means(stripes(bits), pairs[:, 0] - pairs[:, 1] / 2, pairs[:, 0] + pairs[:, 1] / 2)  # [bits, pairs]
    norms = (expected**2).sum(0)
    best = [pairs[(norms - 2 * some @ expected).argmin(1)] for some in np.array_split(shares, len(shares) // BLOCK + 1)]
    found = np.concatenate(best) / 2**bits
    return found[:, 0], found[:, 1]


def means(signs: Signs, low: Floats, high: Floats) -> Floats:
    """[K, M] the mean of each row of signs [K, n] from `low` to `high` [M], in places; outside there is none."""
    sums = np.concatenate([np.zeros((len(signs), 1)), np.cumsum(signs, 1)], 1)
    length = signs.shape[1]
    low, high = np.clip(low, 0, length), np.clip(high, 0, length)
    ends = np.arange(length + 1)
    found = np.stack([np.interp(high, ends, row) - np.interp(low, ends, row) for row in sums])
    return found / np.maximum(high - low, 1e-9)
