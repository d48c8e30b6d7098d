"""Masks in the files of pictures: a label for each pixel, or what is not black."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexar_fast.data import pictures
from dexar_fast.data.item import Mask
from dexar_fast.errors import InputError


def labels(path: Path) -> NDArray[np.generic]:
    """[height, width]: the label of each pixel in a palette or grey picture.

    Raises:
        ImageError: it is missing or damaged.
        InputError: it has colours where labels are due.
    """
    image = pictures.opened(path, path.name)
    if image.mode not in ("P", "L", "I;16", "I", "1"):
        raise InputError(f"{path} has mode {image.mode} where labels are due: a palette or grey picture")
    return np.asarray(image)


def labelled(path: Path, label: int, height: int, width: int) -> Mask:
    """bool: the pixels with a label, in the file's own size, whatever the picture's."""
    return labels(path) == label


def not_black(path: Path, height: int, width: int) -> Mask:
    """bool: the pixels that are not black, in the file's own size, whatever the picture's.

    Any of red, green and blue above 0 counts: grey would round dark colours to 0. A palette counts by its colours; how
    transparent a pixel is does not count.
    """
    pixels = np.asarray(pictures.opened(path, path.name).convert("RGB"))
    found: Mask = np.logical_or.reduce(pixels > 0, axis=2)
    return found
