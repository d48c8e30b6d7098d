"""Regions of a picture: label maps that say which of N regions each pixel lies in."""

from __future__ import annotations

from importlib import import_module
from math import isqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexar_fast.errors import InputError, LibraryError, reason

Labels = NDArray[np.int32]  # [height, width], or [frames, height, width]: 0 .. N - 1, each at least once
Picture = NDArray[np.uint8]  # [height, width, 3], RGB

RULER, ITERATIONS = 20.0, 20  # EAGLE's settings of SLICO


def slico(picture: Picture, count: int) -> Labels:
    """About `count` superpixels as EAGLE makes them: OpenCV's SLICO, on 8-bit BGR, connectivity not enforced.

    Raises:
        LibraryError: OpenCV with its contributed modules is missing.
        InputError: no picture of this kind, or a count that it has no pixels for.
    """
    ximgproc = _library("cv2.ximgproc")
    side = min(isqrt(_pixels(picture, count) // count), *picture.shape[:2])  # OpenCV crashes from twice a side on
    bgr = np.ascontiguousarray(picture[..., ::-1])
    superpixels = ximgproc.createSuperpixelSLIC(bgr, region_size=side, ruler=RULER)
    superpixels.iterate(ITERATIONS)
    return relabelled(superpixels.getLabels())


def slic(picture: Picture, count: int) -> Labels:
    """About `count` superpixels by scikit-image's SLIC, each connected.

    Raises:
        LibraryError: scikit-image is missing. InputError: as in `slico`.
    """
    segmentation = _library("skimage.segmentation")
    _pixels(picture, count)
    return relabelled(segmentation.slic(picture, n_segments=count, start_label=0))


def patches(height: int, width: int, rows: int, columns: int) -> Labels:
    """rows x columns patches, row by row. Their edges are i * height / rows and j * width / columns, cut to int."""
    return _bands(height, rows)[:, None] * columns + _bands(width, columns)


def video_cells(frames: int, height: int, width: int, rows: int = 5, columns: int = 5) -> Labels:
    """[frames, height, width]: the patches of each frame are regions of their own, as EAGLE's authors cut a video."""
    cells = patches(height, width, rows, columns)
    return np.arange(frames, dtype=np.int32)[:, None, None] * (rows * columns) + cells


def relabelled(labels: Any) -> Labels:
    """Any map of whole numbers, [height, width] or with frames before: its values become 0 to N - 1, in their order.

    Raises:
        InputError: another shape, an empty map, or no whole numbers.
    """
    array = whole_numbers(labels)
    return np.unique(array, return_inverse=True)[1].reshape(array.shape).astype(np.int32)


def whole_numbers(labels: Any) -> NDArray[np.integer[Any]]:
    """A label map as an array. Raises InputError as `relabelled`."""
    try:
        array = np.asarray(labels)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"labels are no map of whole numbers: {reason(error)}") from error
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(f"labels are [height, width] or [frames, height, width], not {list(array.shape)}")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"labels are whole numbers, not {array.dtype}")
    return array


def revealed_areas(labels: Labels, order: Tensor) -> Tensor:
    """[N] float64: the share of all pixels in the first k + 1 regions of an order."""
    pixels = torch.from_numpy(np.bincount(labels.ravel(), minlength=len(order)))
    return pixels[order].cumsum(0).double() / labels.size


def _bands(length: int, count: int) -> NDArray[np.int32]:
    """[length]: which of `count` bands each row or column of pixels lies in."""
    if not 1 <= count <= length:
        raise InputError(f"{length} pixels cannot be cut into {count} patches: ask for 1 to {length}")
    edges = np.linspace(0, length, count + 1).astype(int)
    return np.repeat(np.arange(count, dtype=np.int32), np.diff(edges))


def _pixels(picture: Picture, count: int) -> int:
    """How many a picture has, once it is known to be one and to have as many as the regions asked for."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or picture.size == 0:
        raise InputError(f"a picture is uint8 [height, width, 3], not {picture.dtype} {list(picture.shape)}")
    pixels = picture.shape[0] * picture.shape[1]
    if not 1 <= count <= pixels:
        raise InputError(f"a picture of {pixels} pixels has 1 to {pixels} regions, not {count}")
    return pixels


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise LibraryError(f"superpixels need {name} ({reason(error)}): pip install 'dexar-fast[methods]'") from error
