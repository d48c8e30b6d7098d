"""Heat over an image."""

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOUR_MAP = "inferno"
"""Perceptually uniform, and readable with every common colour-vision deficiency and in grey."""

MOST_OPAQUE = 0.85
OPACITY_POWER = 0.75  # under 1, so that lukewarm regions show on saturated colours too


def draw_overlay(image: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """The image under the colours of the heat; opacity grows with the heat, so cold pixels stay as they are.

    Args:
        image: RGB, width x height.
        heat: [height, width] in [0, 1].
    """
    colours = matplotlib.colormaps[COLOUR_MAP](heat)[..., :3] * 255
    opacity = MOST_OPAQUE * heat[..., None] ** OPACITY_POWER
    blended = (1 - opacity) * np.asarray(image) + opacity * colours
    return Image.fromarray(np.rint(blended).astype(np.uint8))
