"""Masks as COCO's annotations hold them: polygons, or runs of pixels (RLE), plain or compressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from dexar_fast.data.item import Mask, Outline
from dexar_fast.errors import InputError


def outline(segmentation: Any) -> Outline:
    """The outline of a `segmentation`: a list of polygons, or runs {"size": [height, width], "counts": ...}.

    Raises:
        InputError: neither of them.
    """
    if isinstance(segmentation, Mapping) and {"size", "counts"} <= segmentation.keys():
        return partial(runs_mask, segmentation)
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, str | bytes) and len(segmentation) > 0:
        return partial(polygons_mask, segmentation)
    raise InputError(f"{str(segmentation)[:40]!r} is no segmentation: it is a list of polygons, or runs")


def union(outlines: Sequence[Outline]) -> Outline:
    """The outline of all of them together. Raises InputError if there is none."""
    if not outlines:
        raise InputError("an object has no segmentation")
    return outlines[0] if len(outlines) == 1 else partial(_any, tuple(outlines))


def _any(outlines: tuple[Outline, ...], height: int, width: int) -> Mask:
    return np.logical_or.reduce([one(height, width) for one in outlines])


def polygons_mask(polygons: Sequence[Sequence[float]], height: int, width: int) -> Mask:
    """bool [height, width]: pixels whose centre lies inside of any polygon [x0, y0, x1, y1, ...], by the even-odd rule.

    (0, 0) is the upper left corner of the picture, (0.5, 0.5) the centre of its first pixel.

    Raises:
        InputError: a polygon of fewer than 3 points, or of what is no finite number.
    """
    return np.logical_or.reduce([_polygon(_points(polygon), height, width) for polygon in polygons])


def _points(polygon: Sequence[float]) -> np.ndarray:
    flat = np.asarray(polygon, dtype=np.float64)
    if flat.ndim != 1 or flat.size < 6 or flat.size % 2 or not np.isfinite(flat).all():
        raise InputError("a polygon is a list [x0, y0, x1, y1, ...] of at least 3 points")
    return flat.reshape(-1, 2)


def _polygon(points: np.ndarray, height: int, width: int) -> Mask:
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, axis=0).T
    centres = np.arange(height)[:, None] + 0.5
    row, edge = np.nonzero((y0 <= centres) != (y1 <= centres))
    crossing = x0[edge] + (row + 0.5 - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
    turns = np.zeros((height, width + 1), dtype=np.int64)
    np.add.at(turns, (row, np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)), 1)
    return turns[:, :width].cumsum(axis=1) % 2 == 1


def runs_mask(runs: Mapping[str, Any], height: int, width: int) -> Mask:
    """bool [height, width] of runs of pixels outside and inside in turn, down the columns, from the left.

    Raises:
        InputError: runs of another size than the picture, or that do not add up to it.
    """
    if list(runs["size"]) != [height, width]:
        raise InputError(f"its runs are for {runs['size']} pixels (height, width), the picture has {[height, width]}")
    counts = runs["counts"]
    lengths = np.asarray(decompressed(counts) if isinstance(counts, str | bytes) else counts, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise InputError(f"its runs do not add up to the {height * width} pixels of the picture")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(width, height).T


def decompressed(counts: str | bytes) -> list[int]:
    """The lengths in a compressed string.

    Each character holds 5 bits, the lowest first, and 32 if more follow; the highest bit of a number is its sign. From
    the fourth on, a number is the difference from the length two before it.

    Raises:
        InputError: characters that are no part of it, or a number that is cut off.
    """
    codes = [code - 48 for code in (counts.encode() if isinstance(counts, str) else counts)]
    if any(not 0 <= code < 64 for code in codes) or (codes and codes[-1] >= 32):
        raise InputError("its compressed runs are damaged")
    lengths: list[int] = []
    value = shift = 0
    for code in codes:
        value |= (code & 31) << shift
        shift += 5
        if code < 32:
            signed = value - (1 << shift) if code & 16 else value
            lengths.append(signed + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return lengths
