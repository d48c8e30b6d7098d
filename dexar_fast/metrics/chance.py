"""Maps that know nothing: what a metric gives for them is its chance line. They are not normalised."""

from __future__ import annotations

import numpy as np

from dexar_fast.metrics.maps import Map, upsampled

SMOOTH_CELLS = 4  # across: a random smooth map is noise on so coarse a grid
CENTRED_WIDTH = 0.25  # of each side: the standard deviation of the centred map


def uniform(height: int, width: int) -> Map:
    """1 everywhere."""
    return np.ones((height, width))


def random_smooth(height: int, width: int, rng: np.random.Generator) -> Map:
    """Uniform noise in [0, 1) on 4 x 4 cells, bilinearly upsampled: blobs about as large as those of real maps.

    Its mean is the same everywhere, .5. Its maximum is not: 12 of the 16 cells lie at the edges, and their values reach
    on to these, so that it lies in the outer eighth of the picture about three times in four.
    """
    return upsampled(rng.random((SMOOTH_CELLS, SMOOTH_CELLS)), height, width)


def centred(height: int, width: int) -> Map:
    """exp(-r^2 / (2 s^2)) around the centre, s a quarter of each side: objects stand in the middle of photographs."""
    return np.outer(_profile(height), _profile(width))


def _profile(length: int) -> Map:
    offset = (np.arange(length) + 0.5) / length - 0.5
    return np.exp(-(offset**2) / (2 * CENTRED_WIDTH**2))
