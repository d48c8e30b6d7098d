"""TAM's scores of an answer's maps: objects found, function words left dark, and both in one. Pure functions.

A map's foreground is what lies above its Otsu threshold; that of a blank map is all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dexar_fast.errors import InputError
from dexar_fast.metrics.agreement import library
from dexar_fast.metrics.maps import Map, Mask, checked, not_negative


class Found(NamedTuple):
    """How well a map's foreground covers an object."""

    iou: float
    precision: float
    recall: float


def object_iou(maps: Sequence[Any], mask: Any) -> Found:
    """Obj-IoU: of the maps of an object's tokens that whose foreground has the best IoU with the object's mask.

    M is 4 of 16 pixels; a map of 1 in half of M and in 2 other pixels, 0 elsewhere: 2 / 6 = .333; precision and recall
    2 / 4. Words that name one object are handed over together, so that the better counts.

    Chance, s being M's share: s for a uniform map; q s / (q + s - q s) for one that knows nothing of M and has a share
    q above its threshold, half of the pixels if their values are uniform; more for the best of several.

    Raises:
        InputError: no map, or as `maps.checked`. LibraryError: scikit-image is missing.
    """
    if len(maps) == 0:
        raise InputError("there is no map of a word that names the object")
    return max(_found(*checked(a, mask)) for a in maps)


def function_iou(maps: Sequence[Any], nouns: Sequence[Any]) -> float:
    """Func-IoU: the share of pixels of the function words' maps below the mean Otsu threshold of the nouns' maps.

    A noun's map of .5 alone has the threshold .5; a function word of .8 in 4 of 16 pixels and .1 elsewhere: 12 / 16.
    Chance: t for function words uniform in [0, 1) beside a mean threshold t; 0 for maps of ones. All are on one scale.

    Raises:
        InputError: no map of either kind, NaN, a value below 0. LibraryError: scikit-image is missing.
    """
    if len(maps) == 0 or len(nouns) == 0:
        raise InputError(f"{len(maps)} maps of function words and {len(nouns)} of nouns: at least one each is due")
    mean = np.mean([threshold(not_negative("a map", noun)) for noun in nouns])
    return float(np.mean([(not_negative("a map", a) < mean).mean() for a in maps]))


def f1_iou(objects: float, functions: float) -> float:
    """F1-IoU: the harmonic mean of the means of Obj-IoU and Func-IoU over a data set. .25 and .75: .375; 0 beside 0.

    Chance: that of the chances of both. Uniform maps have 0, since no function word of theirs is dark.
    """
    total = objects + functions
    return 2 * objects * functions / total if total else 0.0


def threshold(a: Map) -> float:
    """Otsu's, of 256 bins: it parts the values so that both parts vary least. Of a constant map its value."""
    return float(library("skimage.filters").threshold_otsu(a))


def _found(a: Map, mask: Mask) -> Found:
    foreground = a > threshold(a) if np.ptp(a) else np.ones(a.shape, bool)
    both = float((foreground & mask).sum())
    return Found(both / float((foreground | mask).sum()), both / float(foreground.sum()), both / float(mask.sum()))
