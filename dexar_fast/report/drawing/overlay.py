"""Heat over an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.report.drawing import colours
from dexar_fast.vision.maps import Canvas, bands

MOST_OPAQUE = 0.45  # what lies under the hottest place keeps its colour
LINE_OPAQUE = 0.95
OPACITY_POWER = 0.5  # under 1, so that lukewarm regions show on saturated colours too
LEVELS = 4  # lines at 1/4, 2/4 and 3/4
LINES_ACROSS = 240  # a line takes one of so many parts of the longer edge


def draw_overlay(image: Image.Image, heat: NDArray[np.float32] | Canvas, strength: float = 1.0) -> Image.Image:
    """The image under a thin veil in the colours of the heat, with lines where the heat passes 1/4, 1/2 and 3/4.

    Opacity grows with the heat, so cold pixels stay as they are. Drawn in bands: beside the copy of the image it needs
    some MB.

    Args:
        image: RGB, width x height.
        heat: [height, width] in [0, 1].
        strength: from 0 to 1, multiplies the heat.
    """
    drawn = image.copy()
    thick = _thickness(heat.shape)
    for band in bands(*heat.shape):
        above = min(thick, band.start)
        around = heat[band.start - above : band.stop + thick] * np.float32(strength)
        rows = slice(above, above + band.stop - band.start)
        below = image.crop((0, band.start, image.width, band.stop))
        drawn.paste(_blended(below, around[rows], _lines(around, thick)[rows]), (0, band.start))
    return drawn


def _blended(image: Image.Image, heat: NDArray[np.float32], on_line: NDArray[np.bool_]) -> Image.Image:
    below = np.asarray(image, np.float32)
    opacity = np.where(on_line, np.float32(LINE_OPAQUE), np.float32(MOST_OPAQUE)) * heat**OPACITY_POWER
    blended = below + opacity[..., None] * (colours.at(heat) - below)
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def lines(heat: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[height, width] whether a pixel lies on a line: on the warm side of a level."""
    return _lines(heat, _thickness(heat.shape))


def _thickness(shape: tuple[int, ...]) -> int:
    return max(1, round(max(shape) / LINES_ACROSS))


def _lines(heat: NDArray[np.float32], thick: int) -> NDArray[np.bool_]:
    level = np.minimum(heat * LEVELS, LEVELS - 1).astype(np.uint8)
    found = np.zeros(heat.shape, bool)
    found[thick:] |= level[thick:] > level[:-thick]
    found[:-thick] |= level[:-thick] > level[thick:]
    found[:, thick:] |= level[:, thick:] > level[:, :-thick]
    found[:, :-thick] |= level[:, :-thick] > level[:, thick:]
    return found
