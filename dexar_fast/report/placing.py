"""Puts the values of visual tokens where they lie in the images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import InputError
from dexar_fast.results.pictures import SIZES
from dexar_fast.results.schema import Result
from dexar_fast.vision import maps
from dexar_fast.vision.regions import Cells

UNKNOWN_SIZE = (
    "the maps lie in boxes of pixels of a picture whose size is not known: this file was saved without its images by "
    "an older release. Explain again"
)


def place(explanation: Result, values: NDArray[np.floating], image: int) -> list[tuple[Cells, NDArray[np.float32]]]:
    """The grids of an image and the value of each cell, normalised over the cells of all images.

    Args:
        values: [N], one for each visual token.
        image: from 0.

    Raises:
        InputError: a model of unknown geometry, or an image without a grid.
    """
    check_geometry(explanation)
    scaled = maps.min_max_of(values, [grid.cells for grid in explanation.grids])
    placed = [(grid, scaled[grid.cells]) for grid in explanation.grids if image in grid.images]
    if not placed:
        raise InputError(f"image {image} has no grid: none of the visual tokens belongs to it")
    return placed


def check_geometry(explanation: Result) -> None:
    """Raises InputError where no grid says where the visual tokens lie; the message names the reason."""
    if not explanation.grids:
        warnings = explanation.diagnostics.get("warnings")
        reasons = [str(text) for text in warnings if "no place" in str(text)] if isinstance(warnings, list) else []
        reason = reasons[0] if reasons else "the maps have no place in the image"
        raise InputError(
            f"the geometry of this explanation is unknown: {reason}; token_maps and sequence_map hold the values of "
            "the visual tokens"
        )


def single_grid(explanation: Result) -> Cells:
    """The one grid that all visual tokens form, in order. Raises InputError for anything else."""
    grids, visual = explanation.grids, len(explanation.visual_positions)
    if len(grids) != 1 or grids[0].rows * grids[0].columns != visual:
        raise InputError(
            f"one grid is due, and the {visual} visual tokens of this prompt form {len(grids)}: "
            "use dexar_fast.Explainer and Explanation.heatmap"
        )
    return grids[0]


def count(explanation: Result) -> int:
    """How many images an explanation knows of: those kept, or else those that its grids name."""
    return len(explanation.images) or max((grid.images.stop for grid in explanation.grids), default=0)


def extent(explanation: Result, image: int) -> tuple[int, int]:
    """(width, height) of an image in pixels; where it was not kept, as the metadata or else its grids tell."""
    if explanation.images:
        return explanation.images[image].size
    if (known := _size_known(explanation, image)) is not None:
        return known
    grids = [grid for grid in explanation.grids if image in grid.images]
    boxes = [grid.box for grid in grids if grid.box is not None]
    if not boxes:
        return max(((grid.columns, grid.rows) for grid in grids), default=(1, 1))
    return max(1, round(max(box[2] for box in boxes))), max(1, round(max(box[3] for box in boxes)))


def check_size(explanation: Result, image: int) -> None:
    """Raises InputError where boxes alone tell how large an image was: it may reach beyond them, or they beyond it."""
    boxed = any(grid.box is not None for grid in explanation.grids if image in grid.images)
    if boxed and not explanation.images and _size_known(explanation, image) is None:
        raise InputError(UNKNOWN_SIZE)


def _size_known(explanation: Result, image: int) -> tuple[int, int] | None:
    """As a file tells that was saved without its images."""
    sizes: Any = explanation.metadata.get(SIZES)
    try:
        width, height = map(int, sizes[image])
    except (TypeError, ValueError, LookupError):
        return None
    return (width, height) if min(width, height) > 0 else None


def box(explanation: Result, grid: Cells) -> maps.Box:
    """Where a grid lies in its images, in fractions of their width and height."""
    size = extent(explanation, grid.image)
    return maps.scale(grid.box or (0, 0, *size), size, (1, 1))


def canvas(explanation: Result, values: NDArray[np.floating], image: int, size: tuple[int, int]) -> maps.Canvas:
    """The map of `values` [N] over an image scaled to `size` (width, height).

    Raises:
        InputError: as in `place` and `check_size`, or for the size of an image on its side.
    """
    placed = place(explanation, values, image)
    check_size(explanation, image)
    if explanation.images:
        _check_turned(explanation.images[image].size, size)
    boxes = [maps.scale(box(explanation, grid), (1, 1), size) for grid, _ in placed]
    return maps.Canvas([cells for _, cells in placed], boxes, size)


def _check_turned(explained: tuple[int, int], size: tuple[int, int]) -> None:
    """Raises InputError for the size of the explained image on its side: a photo that was turned in between."""
    (width, height), (across, down) = explained, size
    pixel = max(width, height) + max(across, down)
    if abs(width * down - height * across) > pixel >= abs(width * across - height * down):
        raise InputError(
            f"a picture of {across} x {down} pixels is the explained one of {width} x {height} on its side: draw over "
            "the picture as the model saw it"
        )
