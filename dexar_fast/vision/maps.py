"""From the cells of a map to what is shown: numbers in [0, 1], over the pixels of an image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
_DECIMALS = 6  # of a pixel: a smaller share comes from the rounding of a box's edges


def min_max(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """(values - min) / (max - min), in [0, 1]; a constant or empty array gives zeros, never NaN.

    Args:
        values: finite, any shape and floating dtype.
    """
    if values.size == 0 or values.min() == values.max():
        return np.zeros(values.shape, np.float32)
    # Divided first: in float64 the difference of two large numbers can overflow.
    scaled = values.astype(np.float64) / np.abs(values).max()
    return ((scaled - scaled.min()) / np.ptp(scaled)).astype(np.float32)


def min_max_of(values: NDArray[np.floating], grids: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Values [N] with `min_max` taken over the elements that the grids' cells index; 0 elsewhere."""
    chosen = np.zeros(len(values), bool)
    for cells in grids:
        chosen[cells] = True
    result = np.zeros(len(values), np.float32)
    result[chosen] = min_max(values[chosen])
    return result


def scale(box: Box, original: tuple[int, int], size: tuple[int, int]) -> Box:
    """A box in pixels of an image of size `original` (width, height), once that is scaled to `size`."""
    x, y = size[0] / original[0], size[1] / original[1]
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def interpolation(pixels: int, cells: int, low: float, high: float) -> NDArray[np.float64]:
    """Weights [pixels, cells] that take values of equal cells between `low` and `high` to pixels.

    Linear between the centres of the cells, constant beyond the outermost ones. The row of a pixel sums to the share
    of the pixel that lies between `low` and `high`.
    """
    edges = np.arange(pixels + 1).clip(low, high)
    share = np.diff(edges).round(_DECIMALS)
    positions = np.clip((np.arange(pixels) + 0.5 - low) / (high - low) * cells - 0.5, 0, cells - 1)
    weights = np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(cells)))
    return weights * share[:, None]


def paint(grids: Sequence[NDArray[np.float32]], boxes: Sequence[Box], size: tuple[int, int]) -> NDArray[np.float32]:
    """The grids drawn bilinearly in their boxes; where they overlap, their mean weighted by coverage.

    Args:
        grids: values in [0, 1], each [rows, columns].
        boxes: (left, top, right, bottom) of each grid in pixels; may reach beyond the image.
        size: (width, height) of the image.

    Returns:
        [height, width], in [0, 1]. A pixel is the mean over the grids, each weighted by the share of the pixel that it
        covers; 0 where none does.
    """
    width, height = size
    total, coverage = np.zeros((2, height, width))
    for values, (left, top, right, bottom) in zip(grids, boxes, strict=True):
        vertical = interpolation(height, values.shape[0], top, bottom)
        horizontal = interpolation(width, values.shape[1], left, right)
        total += vertical @ values @ horizontal.T
        coverage += np.outer(vertical.sum(axis=1), horizontal.sum(axis=1))
    mean = np.divide(total, coverage, out=np.zeros_like(total), where=coverage > 0)
    return np.clip(mean, 0, 1).astype(np.float32)
