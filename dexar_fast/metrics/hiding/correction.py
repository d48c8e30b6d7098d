"""How little of a picture must be hidden for a wrong answer to become right: pure functions (EAGLE's, on RePOPE)."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import InputError
from dexar_fast.metrics.maps import finite

NONE = 1.0  # the minimal region of an answer that no removal puts right


def minimal_region(right: Sequence[bool], areas: Sequence[float]) -> float:
    """The share of the picture that the smallest removal hides.

    Regions of areas .2, .3 and .5 in this order: `areas` [.2, .5, 1]. If the answer is right with the first shown, and
    with the first two, `right` is [True, True, False]: the smallest removal hides the last region, .5.

    Args:
        right: [N], whether the answer is right with the first k + 1 regions shown, the last with the whole picture.
        areas: [N], the share of the picture that these cover.
    Returns:
        0 if the answer to the whole picture is right, 1 if none is.
    Raises:
        InputError: no regions, or lists of different lengths.
    """
    if len(right) != len(areas) or len(areas) == 0:
        raise InputError(f"{len(right)} answers and {len(areas)} areas: one each is due, of at least one region")
    found = np.flatnonzero(right)
    return float(areas[-1] - areas[found[-1]]) if len(found) else NONE


def amcr(regions: Sequence[float]) -> float:
    """Average minimal correction region: the mean of `minimal_region` over all samples, 1 for those never corrected.

    [.05, .1, .4, 1] gives 1.55 / 4 = .3875. NaN without samples. Chance: that of random orders of the same regions.

    Raises:
        InputError: a region that is no share of a picture.
    """
    return float(np.mean(_shares(regions))) if len(regions) else nan


def csr(regions: Sequence[float], within: float = 0.1) -> float:
    """Correction success rate: the share of all samples that a removal of at most `within` puts right.

    [.05, .1, .4, 1] gives 2 / 4 = .5 within .1. NaN without samples. Chance and errors: as of `amcr`.
    """
    return float(np.mean(_shares(regions) <= within)) if len(regions) else nan


def csr_of_corrected(regions: Sequence[float], within: float = 0.1) -> float:
    """The same as EAGLE's script counts it: among the samples that some removal puts right. Never less than `csr`.

    [.05, .1, .4, 1] gives 2 / 3, since the last is left out. NaN if none is put right. Chance: as of `amcr`.
    """
    return csr([region for region in regions if region < NONE], within)


def _shares(regions: Sequence[float]) -> NDArray[np.float64]:
    found = finite("regions", regions, 1)
    if found.min() < 0 or found.max() > 1 + 1e-6:
        raise InputError(f"regions reach from {found.min():.3g} to {found.max():.3g}: shares of a picture are due")
    return found
