"""What a map and a mask must be, and how a grid becomes a map: min-max normalised, bilinearly upsampled."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import InputError, reason

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]


def is_blank(raw: NDArray[np.floating]) -> bool:
    """True for a constant map, which points nowhere."""
    return bool(raw.max() == raw.min())


def upsampled(grid: NDArray[np.floating], height: int, width: int) -> Map:
    """A [rows, columns] grid bilinearly resized to float64 [height, width]: linear between the centres of cells."""
    rows, columns = grid.shape
    return bilinear(rows, height) @ np.asarray(grid, np.float64) @ bilinear(columns, width).T


def prepared(grid: Any, height: int, width: int) -> Map:
    """(A - min A) / (max A - min A) on the grid, then `upsampled`; all ones for a blank map.

    Raises:
        InputError: no [rows, columns] of finite numbers.
    """
    return upsampled(normalised(finite("a grid", grid, 2)), height, width)


def normalised(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """(A - min A) / (max A - min A) over the last two axes; all ones where it is constant."""
    low, high = grid.min((-2, -1), keepdims=True), grid.max((-2, -1), keepdims=True)
    return np.where(high > low, (grid - low) / np.where(high > low, high - low, 1), 1.0)


@lru_cache(maxsize=64)
def bilinear(cells: int, pixels: int) -> NDArray[np.float64]:
    """Weights [pixels, cells] between the centres of equal cells; constant beyond the outermost ones. Rows sum to 1."""
    positions = np.clip((np.arange(pixels) + 0.5) / pixels * cells - 0.5, 0, cells - 1)
    weights = np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(cells)))
    weights.flags.writeable = False
    return weights


def checked(a: Any, mask: Any) -> tuple[Map, Mask]:
    """A map and its mask, as arrays of one shape. To leave pixels out (VOC's void): `a[~void], mask[~void]`.

    Raises:
        InputError: NaN or infinity, a value below 0, a map of zeros alone, another shape, a mask that is not of truth
            values, or that holds no pixel.
    """
    values = not_negative("a map", a)
    inside = truths("a mask", mask)
    if values.shape != inside.shape:
        raise InputError(f"the map is {list(values.shape)} and its mask {list(inside.shape)}: one shape is due")
    if not inside.any():
        raise InputError("the mask holds no pixel: there is nothing to find in this image")
    if not values.any():
        raise InputError("the map is 0 everywhere: prepared() makes a blank map a uniform one")
    return values, inside


def not_negative(what: str, values: Any) -> NDArray[np.float64]:
    """Finite numbers from 0 on, as float64. Raises InputError."""
    array = finite(what, values)
    if array.min() < 0:
        raise InputError(f"{what} holds {array.min():.3g}: values from 0 on are due, as prepared() makes them")
    return array


def truths(what: str, values: Any) -> Mask:
    """An array of truth values. Raises InputError: numbers of classes, or 255, would pass for true."""
    array = np.asarray(values)
    if array.dtype != np.bool_ or array.size == 0:
        raise InputError(
            f"{what} holds truth values, not {array.dtype} {list(array.shape)}: say which ones, as in x > 0"
        )
    return array


def finite(what: str, values: Any, dimensions: int | None = None) -> NDArray[np.float64]:
    """Finite real numbers, at least one, as float64. Raises InputError."""
    try:
        array = np.asarray(values)
        real = array.dtype.kind in "biuf"
        array = array.astype(np.float64) if real else array
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{what} is no array of numbers: {reason(error)}") from error
    if not real or array.size == 0 or dimensions not in (None, array.ndim):
        wanted = "numbers" if dimensions is None else f"numbers of {dimensions} axes"
        raise InputError(f"{what} holds {wanted}, not {array.dtype} {list(array.shape)}")
    if not np.isfinite(array).all():
        raise InputError(f"{what} holds NaN or infinity")
    return array
