"""A picture that is nowhere the same, and where the visual tokens of inputs lie in it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from dexar_fast.prompt.remade.seen import placed
from dexar_fast.prompt.request import given
from dexar_fast.vision.geometry import Layout

WIDE = (240, 80)


def picture(size: tuple[int, int] = WIDE, seed: int = 0) -> Image.Image:
    """Smooth, and nowhere the same."""
    cells = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


def seen(processor: Any, config: Any, inputs: Any, images: Any) -> Layout:
    return placed(config, processor, given(inputs, images))[1]
