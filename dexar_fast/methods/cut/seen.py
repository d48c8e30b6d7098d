"""Which regions a model sees: a processor may crop parts of a picture away, or leave out frames of a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.methods.cut.divided import Divided
from dexar_fast.vision.regions import Cells

Process = Callable[[Sequence[Image.Image]], Mapping[str, Tensor]]


def seen_by(cut: Divided, grids: Sequence[Cells], process: Process) -> Tensor:
    """[M] int64, ascending: the regions that lie under visual tokens; where no grid tells, those that change pixels.

    Raises:
        InputError: the model sees none of them.
    """
    if {image for grid in grids for image in grid.images} >= {*range(len(cut.pictures))}:
        seen = np.flatnonzero(_under_grids(cut, grids))
    else:
        seen = np.flatnonzero(_changing(cut, process))
    if len(seen) == 0:
        raise InputError("the model sees none of the regions: its processor crops them away")
    return torch.from_numpy(seen)


def _under_grids(cut: Divided, grids: Sequence[Cells]) -> NDArray[np.bool_]:
    """[N], whether a grid's box holds the centre of a pixel of the region."""
    seen = np.zeros(cut.count, bool)
    for image, labels in enumerate(cut.labels):
        height, width = labels.shape
        for grid in grids:
            if image in grid.images:
                left, top, right, bottom = grid.box or (0, 0, width, height)
                rows, columns = _inside(height, top, bottom), _inside(width, left, right)
                seen[np.unique(labels[rows][:, columns])] = True
    return seen


def _inside(pixels: int, low: float, high: float) -> NDArray[np.bool_]:
    centres = np.arange(pixels) + 0.5
    return (centres > low) & (centres < high)


def _changing(cut: Divided, process: Process) -> NDArray[np.bool_]:
    """[N], whether a black picture that is white in the region gives other pixels."""
    black = process(cut.white(torch.zeros(cut.count, dtype=torch.bool)))
    alone = (process(cut.white(each)) for each in torch.eye(cut.count, dtype=torch.bool))
    return np.array([any(not torch.equal(each[name], black[name]) for name in black) for each in alone])
