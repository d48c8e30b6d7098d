"""How well a map finds an object: pure functions of a map A >= 0 and a binary mask M of one shape.

A map is handed over as `maps.prepared`: min-max normalised and bilinearly upsampled to the mask. A blank (constant) map
scores as a uniform one. Chance maps are not normalised. s is M's share of the image: what a uniform map scores. All
raise InputError as `maps.checked`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dexar_fast.errors import InputError
from dexar_fast.metrics.maps import checked, truths

DECIBELS = 30.0  # the bound of `snr`


def soft_iou(a: Any, mask: Any) -> float:
    """sum(A M) / (sum A + sum M - sum(A M)), in [0, 1].

    M is 4 of 16 pixels, A is 1 inside and .1 outside: 4 / (5.2 + 4 - 4) = .769.
    Chance: s for a uniform map of ones; m s / (m + s - m s) for a map of mean m that knows nothing of M.
    """
    values, inside = checked(a, mask)
    both = values[inside].sum()
    return float(both / (values.sum() + inside.sum() - both))


def energy_inside(a: Any, mask: Any) -> float:
    """Energy pointing game (EPG), sum(A M) / sum A, in [0, 1].

    M is 4 of 16 pixels, A is 1 inside and .1 outside: 4 / 5.2 = .769. Chance: s.
    """
    values, inside = checked(a, mask)
    return float(values[inside].sum() / values.sum())


def snr(a: Any, mask: Any) -> float:
    """10 log10( mean of A inside M / mean of A outside M ) in dB, floored at -30 dB and capped at 30 dB.

    A is 1 inside and .1 outside: 10 dB. Chance: 0, as a uniform map. The bounds stand for a map with nothing inside, or
    nothing outside, the mask.

    Raises:
        InputError: a mask without an outside, too.
    """
    values, inside = checked(a, mask)
    if inside.all():
        raise InputError("the mask covers the whole image: there is no outside to compare with")
    within, outside = float(values[inside].mean()), float(values[~inside].mean())
    bound = 10 ** (DECIBELS / 10)
    ratio = bound if outside <= within / bound else within / outside
    return float(10 * np.log10(max(ratio, 1 / bound)))


def points_at(a: Any, mask: Any) -> float:
    """Pointing game, fair to ties: the share of the map's maxima that lie in M. 1 or 0 where the maximum is unique.

    Two of three maxima inside: 2 / 3. Chance: s where the maximum may lie anywhere. That of a random smooth map prefers
    the edges (`chance.random_smooth`), so objects off the edges have less by chance.
    """
    values, inside = checked(a, mask)
    return float(inside[values == values.max()].mean())


def points_at_as_eagle(a: Any, mask: Any) -> bool:
    """Pointing game as EAGLE's script reads it: whether any maximum of the map lies in M.

    Two of three maxima inside: a hit. A constant map always hits, and one with NaN misses. Chance: s for a map whose
    maximum is unique, but 1 for a constant one.
    """
    values = np.asarray(a, np.float64)
    if np.isnan(values).any():
        return False
    inside = truths("a mask", mask)
    if values.shape != inside.shape:
        raise InputError(f"the map is {list(values.shape)} and its mask {list(inside.shape)}: one shape is due")
    return bool(inside.any() and values[inside].max() == values.max())
