"""IoU over thresholds: the best overlap of a mask with where a map is at least k/20 (k = 1..20), image by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.errors import InputError
from dexar_fast.metrics.maps import Map, Mask, bilinear, checked, finite, normalised, truths

THRESHOLDS = 20  # k/20, k = 1..20
INSIDE = 128  # added to the threshold that a pixel of the mask reaches


def best_iou(a: Any, mask: Any) -> float:
    """max over k = 1..20 of |{A >= k/20} and M| / |{A >= k/20} or M|, for a map in [0, 1] and a mask of its shape.

    M is 4 of 16 pixels; A is 1 in M, .6 in 4 other pixels, 0 elsewhere: IoU is 4/8 up to .6 and 4/4 above, so 1.
    Chance, s being M's share: s for a uniform map; q s / (q + s - q s) for one that knows nothing of M and reaches 1/20
    in a share q of the pixels. "At least" is taken as 20 A >= k in float32.

    Raises:
        InputError: as `maps.checked`, or a value above 1.
    """
    values, inside = checked(a, mask)
    if values.max() > 1:
        raise InputError(f"the map reaches {values.max():.3g}: thresholds are of maps in [0, 1], as prepared() makes")
    return _best(values.astype(np.float32), inside)


def best_ious(grids: Any, masks: Sequence[Any] | Mask) -> NDArray[np.float64]:
    """[n]: `best_iou` of many grids, each normalised and upsampled to its mask as `maps.prepared` does.

    Args:
        grids: [n, rows, columns], finite. masks: n truth values [height, width], of any sizes.
    Raises:
        InputError: as `best_iou`, or another number of masks.
    """
    maps = normalised(finite("grids", grids, 3)).astype(np.float32)
    if len(maps) != len(masks):
        raise InputError(f"{len(maps)} maps and {len(masks)} masks: one each is due")
    return np.array([_best_of(grid, truths("a mask", mask)) for grid, mask in zip(maps, masks, strict=True)])


def _best_of(grid: NDArray[np.float32], mask: Mask) -> float:
    if mask.ndim != 2 or not mask.any():
        raise InputError(f"a mask is [height, width] with a pixel in it, not {int(mask.sum())} of {list(mask.shape)}")
    down, across = (bilinear(*sizes).astype(np.float32) for sizes in zip(grid.shape, mask.shape, strict=True))
    return _best(down @ grid @ across.T, mask)


def _best(a: NDArray[np.float32] | Map, mask: Mask) -> float:
    """One count of the highest threshold that each pixel reaches stands for twenty comparisons."""
    level = (a * np.float32(THRESHOLDS)).astype(np.uint8)
    level += mask.view(np.uint8) * np.uint8(INSIDE)
    outside, inside = np.reshape(_histogram(level), (2, INSIDE))[:, 1 : THRESHOLDS + 1]
    hits, misses = (counts[::-1].cumsum() for counts in (inside, outside))
    return float((hits / (np.count_nonzero(mask) + misses)).max())


def _histogram(level: NDArray[np.uint8]) -> list[int]:
    """How often each of 256 values occurs: Pillow counts bytes several times as fast as NumPy."""
    return Image.fromarray(np.ascontiguousarray(level).reshape(1, -1)).histogram()
