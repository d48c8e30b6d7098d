"""The colours of heat."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STEPS = 256
COLOUR_MAP = "inferno"
"""Perceptually uniform, and readable with every common colour-vision deficiency and in grey."""

# 256 x 1 pixels: matplotlib's colour map of this name (CC0), rounded to bytes. So heat is drawn without matplotlib.
_TABLE = Path(__file__).parents[2] / "assets" / "inferno.png"


@cache
def palette() -> NDArray[np.uint8]:
    """[256, 3], to read; a value v in [0, 1] has the colour min(255, floor(256 v)), as in matplotlib."""
    with Image.open(_TABLE) as table:
        return np.asarray(table.convert("RGB"))[0]


def at(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The colours [..., 3] of values in [0, 1]."""
    return palette()[np.minimum(values * STEPS, STEPS - 1).astype(np.uint8)]


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
