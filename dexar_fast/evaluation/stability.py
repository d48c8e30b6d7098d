"""Whether small noise in the picture leaves a map as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from dexar_fast.methods import knobs
from dexar_fast.metrics.agreement import rank_correlations


@dataclass(frozen=True)
class Stability:
    """How alike a map stays under noise.

    Attributes:
        noise: standard deviation of the Gaussian noise, of 255 steps a colour.
        correlations: [draws], Spearman's, of the map with each of a noisy picture. A method that always gives one map
            has 1: read it beside `sanity`.
    """

    noise: float
    correlations: list[float]

    @property
    def mean(self) -> float:
        """Of the correlations."""
        return float(np.mean(self.correlations))


def stability(
    explain: Callable[[Image.Image], Any], picture: Image.Image, *, noise: float = 5.0, draws: int = 5, seed: int = 0
) -> Stability:
    """Explains a picture under noise again and again.

    Args:
        explain: gives the map [N] of a picture, for one given answer, such as
            `lambda picture: ex.explain(picture, prompt, answer).sequence_map`.
        picture: RGB. noise: of 255 steps; 5 is hardly seen. draws: noisy pictures.
    Raises:
        InputError: an option that is none; as `rank_correlation`.
    """
    knobs.real("noise", noise)
    rng = np.random.default_rng(knobs.seed(seed))
    noisy = [noised(picture, noise, rng) for _ in range(knobs.whole("draws", draws, 1))]
    found = rank_correlations(np.asarray(explain(picture)), [np.asarray(explain(each)) for each in noisy])
    return Stability(float(noise), found.tolist())


def noised(picture: Image.Image, noise: float, rng: np.random.Generator) -> Image.Image:
    """The picture with independent Gaussian noise in every colour of every pixel, rounded and clipped to 8 bits."""
    values = np.asarray(picture.convert("RGB"), np.float64)
    return Image.fromarray((values + rng.normal(0, noise, values.shape)).round().clip(0, 255).astype(np.uint8))
