"""Chance maps as methods of their own: every metric is also given for maps that know nothing."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from dexar_fast.metrics import chance
from dexar_fast.metrics.maps import Map

NAMES = ("random-smooth", "centre", "uniform")


def seed_of(seed: int, name: str) -> int:
    """The seed of all that is drawn for an item."""
    return zlib.crc32(f"{seed} {name}".encode("utf-8", "surrogatepass"))


def method(name: str, seed: int) -> str:
    """The method that gives such a map to what hides parts of the picture in its order."""
    return f"{name}:seed={seed}" if name == "random-smooth" else name


def drawn(name: str, height: int, width: int, seed: Sequence[int]) -> Map:
    """[height, width], not normalised: what is measured beside masks."""
    if name == "random-smooth":
        return chance.random_smooth(height, width, np.random.default_rng(list(seed)))
    return chance.centred(height, width) if name == "centre" else chance.uniform(height, width)
