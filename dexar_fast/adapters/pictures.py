"""Batches of pictures as tools for classifiers hand them over, and the maps of their answers as they take them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.errors import InputError
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation

NOISE = 1.0  # by how much a metric's noise may leave [0, 1]


def pictures(inputs: Any) -> list[Image.Image]:
    """Of inputs [B, 3, height, width] in [0, 1]; noise beyond is cut off. Raises InputError for others."""
    pixels = np.asarray(inputs.detach().cpu() if hasattr(inputs, "detach") else inputs)
    shaped = pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.size > 0
    if not shaped or not -NOISE <= pixels.min() <= pixels.max() <= 1 + NOISE:
        raise InputError(
            "inputs are pictures [B, 3, height, width] in [0, 1]: the model's processor resizes and normalises them"
        )
    cut = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    return [Image.fromarray(each) for each in cut.transpose(0, 2, 3, 1)]


def explained(
    explainer: Explainer, images: Sequence[Image.Image], prompt: str, answers: Sequence[str | None]
) -> list[Explanation]:
    """One question about each picture, and its answer; None generates one. Raises as `Explainer.explain`."""
    found = explainer.explain_batch([(*each,) for each in zip(images, [prompt] * len(images), answers, strict=True)])
    return [_good(each) for each in found]


def _good(found: Explanation | Exception) -> Explanation:
    if isinstance(found, Exception):
        raise found
    return found


def maps(explanations: Sequence[Explanation]) -> NDArray[np.float32]:
    """[B, height, width] in [0, 1]: the maps of the answers over their pictures, which must be of one size.

    Raises:
        InputError: none, pictures of several sizes, or a map that has no place in its picture.
    """
    if not explanations:
        raise InputError("there is no explanation to make a batch of")
    found = [each.heatmap(resolution="image") for each in explanations]
    sizes = sorted({each.shape for each in found})
    if len(sizes) > 1:
        raise InputError(f"a batch is of pictures of one size, and these are {sizes[0]} and {sizes[1]}")
    return np.stack(found)
