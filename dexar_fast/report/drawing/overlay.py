"""Heat over an image."""

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOUR_MAP = "inferno"
"""Perceptually uniform, and readable with every common colour-vision deficiency and in grey."""

MOST_OPAQUE = 0.45  # what lies under the hottest place keeps its colour
LINE_OPAQUE = 0.95
OPACITY_POWER = 0.5  # under 1, so that lukewarm regions show on saturated colours too
LEVELS = 4  # lines at 1/4, 2/4 and 3/4
LINES_ACROSS = 240  # a line takes one of so many parts of the longer edge


def draw_overlay(image: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """The image under a thin veil in the colours of the heat, with lines where the heat passes 1/4, 1/2 and 3/4.

    Opacity grows with the heat, so cold pixels stay as they are.

    Args:
        image: RGB, width x height.
        heat: [height, width] in [0, 1].
    """
    colours = matplotlib.colormaps[COLOUR_MAP](heat)[..., :3] * 255
    opacity = np.where(lines(heat), LINE_OPAQUE, MOST_OPAQUE) * heat**OPACITY_POWER
    blended = (1 - opacity[..., None]) * np.asarray(image) + opacity[..., None] * colours
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def lines(heat: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[height, width] whether a pixel lies on a line: on the warm side of a level."""
    thick = max(1, round(max(heat.shape) / LINES_ACROSS))
    level = np.minimum(heat * LEVELS, LEVELS - 1).astype(np.uint8)
    found = np.zeros(heat.shape, bool)
    found[thick:] |= level[thick:] > level[:-thick]
    found[:-thick] |= level[:-thick] > level[thick:]
    found[:, thick:] |= level[:, thick:] > level[:, :-thick]
    found[:, :-thick] |= level[:, :-thick] > level[:, thick:]
    return found
