"""From the cells of a map to what is shown: numbers in [0, 1], over the pixels of an image."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
BAND_PIXELS = 2**18  # drawn at a time: a few MB in float64
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


class Canvas:
    """Grids drawn bilinearly in their boxes over an image; where they overlap, their mean weighted by coverage.

    `canvas[first:stop]` draws these rows, float32 [rows, width] in [0, 1]: so a large image needs no array of its size.
    A pixel is the mean over the grids, each weighted by the share of the pixel that it covers; 0 where none does.

    Args:
        grids: values in [0, 1], each [rows, columns].
        boxes: (left, top, right, bottom) of each grid in pixels; may reach beyond the image.
        size: (width, height) of the image.
    """

    def __init__(self, grids: Sequence[NDArray[np.float32]], boxes: Sequence[Box], size: tuple[int, int]) -> None:
        width, height = size
        self.shape = height, width
        self._layers = []
        for values, (left, top, right, bottom) in zip(grids, boxes, strict=True):
            vertical = interpolation(height, values.shape[0], top, bottom)
            horizontal = interpolation(width, values.shape[1], left, right)
            self._layers.append((vertical, values @ horizontal.T, horizontal.sum(axis=1)))

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        first, stop, _ = rows.indices(self.shape[0])
        drawn = np.empty((stop - first, self.shape[1]), np.float32)
        for band in bands(*drawn.shape):
            drawn[band] = self._draw(slice(first + band.start, first + band.stop))
        return drawn

    def _draw(self, rows: slice) -> NDArray[np.float64]:
        total, coverage = np.zeros((2, rows.stop - rows.start, self.shape[1]))
        for vertical, across, covered in self._layers:
            total += vertical[rows] @ across
            coverage += np.outer(vertical[rows].sum(axis=1), covered)
        mean = np.divide(total, coverage, out=np.zeros_like(total), where=coverage > 0)
        return np.clip(mean, 0, 1)


def bands(height: int, width: int) -> Iterator[slice]:
    """The rows of an image in bands of about `BAND_PIXELS`."""
    rows = max(1, BAND_PIXELS // max(1, width))
    return (slice(first, min(first + rows, height)) for first in range(0, height, rows))
