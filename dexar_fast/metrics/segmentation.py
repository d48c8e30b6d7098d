"""How well a map finds an object: pure functions of a map A and a binary mask M.

A map is handed over as `prepared`: min-max normalised and bilinearly upsampled to the mask. A blank
(constant) map scores as a uniform one. Chance maps are not normalised.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]


def is_blank(raw: NDArray[np.floating]) -> bool:
    """True for a constant map, which points nowhere."""
    return bool(raw.max() == raw.min())


def upsampled(grid: NDArray[np.floating], height: int, width: int) -> Map:
    """A [rows, columns] grid bilinearly resized to [height, width], pixel centres aligned."""
    field = Image.fromarray(np.asarray(grid, dtype=np.float32))
    return np.asarray(field.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float64)


def prepared(grid: NDArray[np.floating], height: int, width: int) -> Map:
    """(A - min A) / (max A - min A) on the grid, then `upsampled`; all ones for a blank map."""
    if is_blank(grid):
        return np.ones((height, width))
    low, high = float(grid.min()), float(grid.max())
    return upsampled((grid - low) / (high - low), height, width)


def energy_inside(a: Map, mask: Mask) -> float:
    """Energy pointing game, sum(A M) / sum A."""
    return float(a[mask].sum() / a.sum())


def snr(a: Map, mask: Mask) -> float:
    """10 log10( mean of A inside M / mean of A outside M ) in dB, floored at -30 dB and capped at 30 dB.

    0 for a uniform map. The bounds stand for a map with nothing inside, or nothing outside, the mask.
    """
    inside, outside = float(a[mask].mean()), float(a[~mask].mean())
    bound = 1e3
    ratio = bound if outside <= inside / bound else inside / outside
    return float(10 * np.log10(max(ratio, 1 / bound)))


def points_at(a: Map, mask: Mask) -> float:
    """Pointing game: the share of the map's maxima that lie in M. 1 or 0 where the maximum is unique, the
    mask's share of the image for a uniform map."""
    return float(mask[a == a.max()].mean())
