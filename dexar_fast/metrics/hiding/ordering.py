"""In which order parts of an image are hidden, and how many at each step: the same schedule for every method."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import InputError
from dexar_fast.metrics.maps import finite

STEPS = 64  # EAGLE's for its baselines


def order(values: Any, seed: int = 0) -> NDArray[np.int64]:
    """[n]: the places of [n] values, the greatest first; equal values in a random order of the seed.

    [.2, .9, .5] gives [1, 2, 0]. So a blank map is a random order, and no method gains by where its ties lie.

    Raises:
        InputError: no [n] of finite numbers.
    """
    found = finite("a map", values, 1)
    shuffled = np.random.default_rng(seed).permutation(len(found))
    return shuffled[np.argsort(-found[shuffled], kind="stable")]


def counts(parts: int, steps: int = STEPS) -> NDArray[np.int64]:
    """[steps + 1]: how many of `parts` are hidden, or shown, after each step: int(parts * i / steps), i = 0..steps.

    Ten parts in four steps: [0, 2, 5, 7, 10].
    """
    if steps < 1 or parts < 1:
        raise InputError(f"{parts} parts in {steps} steps: at least one of each is due")
    return parts * np.arange(steps + 1) // steps


def first(places: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """[n], whether each part is among the first `count` of an order. [1, 2, 0] and 2: [False, True, True]."""
    chosen = np.zeros(len(places), bool)
    chosen[places[:count]] = True
    return chosen
