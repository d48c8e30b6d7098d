"""The embedded model and an answer of it, for every test of this room."""

import pytest

from dexar_fast import Explainer, Explanation
from dexar_fast.data.shapes import draw_scene

QUESTION = "What color is the circle?"


@pytest.fixture(scope="session")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


@pytest.fixture(scope="session")
def answer(embedded: Explainer) -> Explanation:
    return embedded.explain(draw_scene(3).image, QUESTION)
