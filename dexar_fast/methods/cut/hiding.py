"""Hides regions of a picture, as pixels, before the model's processor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dexar_fast.errors import InputError
from dexar_fast.methods import knobs
from dexar_fast.methods.cut.labels import Labels, Picture

BLUR = 0.1  # of the longer side: the standard deviation of the blur


def _black(picture: Picture) -> Picture:
    return np.zeros_like(picture)


def _mean(picture: Picture) -> Picture:
    colour = picture.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    return np.broadcast_to(colour, picture.shape)


def _blur(picture: Picture) -> Picture:
    radius = BLUR * max(picture.shape[:2])
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def _noise(picture: Picture) -> Picture:
    return np.random.default_rng(0).integers(0, 256, picture.shape, np.uint8)


FILLS: dict[str, Callable[[Picture], Picture]] = {"black": _black, "mean": _mean, "blur": _blur, "noise": _noise}


def cover(picture: Picture, fill: str) -> Picture:
    """What a picture shows where it is hidden: black, its mean colour, itself under a Gaussian blur, or noise.

    The noise is uniform over all colours, and the same for every picture of one size.
    """
    knobs.one_of("fill", fill, FILLS)
    return FILLS[fill](picture)


def hidden(picture: Picture, labels: Labels, revealed: NDArray[np.bool_], covered: Picture) -> Picture:
    """The picture where its region is revealed, and its `cover` elsewhere.

    Args:
        picture, covered: uint8 [height, width, 3], or with frames before.
        labels: the region of each pixel. revealed: bool [N].
    """
    if not (picture.shape == covered.shape and picture.shape[:-1] == labels.shape):
        shapes = ", ".join(str(list(array.shape)) for array in (picture, labels, covered))
        raise InputError(f"picture, labels and cover differ in size: {shapes}")
    if labels.max() >= len(revealed):
        raise InputError(f"the labels name region {labels.max()}, but there are {len(revealed)}")
    return np.where(revealed[labels][..., None], picture, covered)
