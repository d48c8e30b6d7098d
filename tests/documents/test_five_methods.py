"""What METHODS.md says of five methods on the sample: how often a word's hottest point lies at its own shape."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from paths import ROOT
from PIL import Image

from dexar_fast import Explainer
from dexar_fast.cli.explain import SAMPLE_IMAGE, SAMPLE_PROMPT

SHAPES = {"red": "red", "triangle": "red", "yellow": "yellow", "circle": "yellow", "blue": "blue", "square": "blue"}
MARGIN = 16  # pixels around a shape that count as its place


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


def boxes() -> dict[str, NDArray[np.int64]]:
    """[2, 2] the first and the last row and column of each shape, by its colour."""
    red, green, blue = np.asarray(Image.open(SAMPLE_IMAGE).convert("RGB")).astype(int).transpose(2, 0, 1)
    masks = {
        "red": (red > 150) & (green < 90) & (blue < 90),
        "yellow": (red > 180) & (green > 160) & (blue < 110),
        "blue": (blue > 150) & (red < 90) & (green < 110),
    }
    found = {name: np.argwhere(mask) for name, mask in masks.items()}
    return {name: np.stack([places.min(0) - MARGIN, places.max(0) + MARGIN]) for name, places in found.items()}


@pytest.mark.parametrize(
    ("method", "hits"),
    [
        ("attention-gradient", 6),
        ("dex-ar", 5),
        ("tam", 4),
        ("attention", 2),
        pytest.param("eagle", 2, marks=pytest.mark.slow),
    ],
)
def test_so_many_words_point_at_their_shape(embedded: Explainer, method: str, hits: int) -> None:
    found, at = embedded.with_method(method).explain(str(SAMPLE_IMAGE), SAMPLE_PROMPT), boxes()
    pointed = {}
    for token, text in enumerate(found.tokens):
        if (word := text.strip()) in SHAPES and found.token_weights[token] > 0:
            heat = found.heatmap(token, resolution="image")
            hottest = np.array(np.unravel_index(heat.argmax(), heat.shape))
            low, high = at[SHAPES[word]]
            pointed[word] = bool((low <= hottest).all() and (hottest <= high).all())
    assert sum(pointed.values()) == hits
    assert pointed.keys() == SHAPES.keys() - ({"triangle"} if method == "dex-ar" else set())
    page = " ".join((ROOT / "dexar_fast/METHODS.md").read_text("utf-8").split())
    assert f"{hits} times by `{method}`" in page or f"{hits} by `{method}`" in page
