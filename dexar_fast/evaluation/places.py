"""The pixels of a request's pictures that the model sees, in one list, so that several pictures share one ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.errors import InputError
from dexar_fast.methods.cut.labels import patches
from dexar_fast.metrics.maps import Map, Mask
from dexar_fast.report import placing
from dexar_fast.results.schema import Result
from dexar_fast.vision import maps
from dexar_fast.vision.grid import Grid
from dexar_fast.vision.regions import Cells

MOST_ACROSS = 384  # pixels on the longer side: finer masks hide no more


class Places:
    """P pixels of the pictures of an explanation, each drawn at most 384 pixels across.

    Args:
        grids: where the model's visual tokens lie. Pixels under none are not seen: they are never hidden. Where no grid
            is known, all are seen.
    Raises:
        InputError: the model sees none of them.
    """

    def __init__(self, explanation: Result, grids: Sequence[Cells]) -> None:
        self._explanation = explanation
        whole = [Grid(image, 0, 1, 1) for image in range(len(explanation.images))]
        self._seen = [
            _seen(picture, [grid for grid in grids or whole if image in grid.images])
            for image, picture in enumerate(explanation.images)
        ]
        self.count = sum(int(seen.sum()) for seen in self._seen)
        if self.count == 0:
            raise InputError("the model sees nothing of the pictures: its processor crops them away")

    def of(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """[P], a map [N] of the explanation over the pixels, in [0, 1]. Raises InputError where it has no place."""
        placing.check_geometry(self._explanation)
        drawn = [
            placing.canvas(self._explanation, values, image, seen.shape[::-1])[:]
            for image, seen in enumerate(self._seen)
        ]
        return self._flat(drawn)

    def drawn(self, draw: Callable[[int, int], Map]) -> NDArray[np.float64]:
        """[P], what a function of height and width draws of each picture."""
        return self._flat([draw(*seen.shape) for seen in self._seen])

    def patches(self, side: int) -> NDArray[np.float64]:
        """[P], which patch each pixel lies in, of side x side in each picture; counted through all pictures."""
        each = [patches(*seen.shape, *np.minimum(side, seen.shape).tolist()) for seen in self._seen]
        return self._flat([labels + float(side**2 * image) for image, labels in enumerate(each)])

    def masks(self, hidden: Mask) -> list[Mask]:
        """The pictures' masks [height, width] of chosen pixels, bool [P]."""
        found, start = [], 0
        for seen in self._seen:
            mask, count = np.zeros_like(seen), int(seen.sum())
            mask[seen] = hidden[start : start + count]
            found.append(mask)
            start += count
        return found

    def _flat(self, drawn: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
        parts = [values[seen] for values, seen in zip(drawn, self._seen, strict=True)]
        return np.concatenate(parts).astype(np.float64)


def _seen(picture: Image.Image, grids: Sequence[Cells]) -> Mask:
    """[height, width], whether the centre of a pixel lies in the box of one of a picture's grids."""
    scale = min(1.0, MOST_ACROSS / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    seen = np.zeros((height, width), bool)
    for grid in grids:
        box = maps.scale(grid.box or (0, 0, *picture.size), picture.size, (width, height))
        seen |= np.outer(_inside(height, box[1], box[3]), _inside(width, box[0], box[2]))
    return seen


def _inside(pixels: int, low: float, high: float) -> Mask:
    centres = np.arange(pixels) + 0.5
    return (centres > low) & (centres < high)
