"""The colours of heat, for a page."""

from __future__ import annotations

import matplotlib
import numpy as np
from numpy.typing import NDArray

from dexar_fast.report.drawing.overlay import COLOUR_MAP

STEPS = 256


def palette() -> NDArray[np.uint8]:
    """[256, 3]; a value v in [0, 1] has the colour min(255, floor(256 v)), as in matplotlib."""
    colours = matplotlib.colormaps[COLOUR_MAP](np.arange(STEPS))
    return np.rint(colours[:, :3] * 255).astype(np.uint8)


def gradient() -> str:
    """The palette as a CSS gradient along the reading direction of numbers."""
    stops = palette()[np.linspace(0, STEPS - 1, 17).round().astype(int)]
    return f"linear-gradient(90deg, {', '.join(css(stop) for stop in stops)})"


def css(colour: NDArray[np.uint8]) -> str:
    return "#" + bytes(colour).hex()


def of(value: float) -> NDArray[np.uint8]:
    """The colour of a value in [0, 1]."""
    return palette()[min(STEPS - 1, int(value * STEPS))]


def ink_on(colour: NDArray[np.uint8]) -> str:
    """Black or white, whichever is easier to read: at least 4.5 to 1 by WCAG 2, as for any colour."""
    linear = (colour / 255.0) ** 2.2
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "#000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#fff"
