"""What a notebook shows of an explanation: the answer, its map, and nothing that runs, loads or grows."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from made_explanations import QUICK, explanations, grey, make
from PIL import Image
from report_examples import noise

from dexar_fast.explanation import Explanation
from dexar_fast.vision.grid import Grid

URI = "data:image/png;base64,"


class Cell(HTMLParser):
    """The tags of a cell, its text, and its chips as (text, style)."""

    def __init__(self, explanation: Explanation) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.chips: list[tuple[str, str]] = []
        self.feed(explanation._repr_html_())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "span":
            self.chips.append((data, self.tags[-1][1]["style"] or ""))

    @property
    def picture(self) -> Image.Image:
        (source,) = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        assert source is not None and source.startswith(URI)
        return Image.open(io.BytesIO(base64.b64decode(source[len(URI) :])))


def test_the_answer_is_in_chips_in_the_colours_of_its_weights() -> None:
    cell = Cell(make(3, token_weights=torch.tensor([0.0, 1.0, 4.0])))
    assert [text for text, _ in cell.chips] == ["word0", "word1", "word2"]
    assert cell.text.startswith(" word0 word1 word2")
    nothing, some, most = (style for _, style in cell.chips)
    assert nothing == "" and some != most
    assert re.fullmatch(r"background:#[0-9a-f]{6};color:#[0-9a-f]{3};border-radius:3px;padding:1px 2px", most)
    assert [attributes["title"] for tag, attributes in cell.tags if tag == "span"] == [
        "weight 0", "weight 1", "weight 4"]  # fmt: skip
    assert "up to 4" in cell.text


def test_the_picture_is_the_overlay_of_the_answer() -> None:
    explanation = make()
    np.testing.assert_array_equal(np.asarray(Cell(explanation).picture), np.asarray(explanation.overlay()))


@pytest.mark.parametrize(("size", "shown"), [((2000, 1000), (480, 240)), ((10, 4000), (2, 640)), ((30, 20), (30, 20))])
def test_a_picture_is_small(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert Cell(make(images=(grey(*size),))).picture.size == shown


def test_the_first_image_with_a_map_is_shown() -> None:
    explanation = make(grids=(Grid(1, 0, 3, 4),), images=(grey(), grey(30, 50)))
    assert Cell(explanation).picture.size == (30, 50)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"images": ()}, "No map: the image was not kept"), ({"grids": ()}, "No map: the geometry of this explanation")],
)  # fmt: skip
def test_without_a_picture_it_says_why(changes: dict[str, Any], reason: str) -> None:
    cell = Cell(make(**changes))
    assert reason in cell.text and "img" not in [tag for tag, _ in cell.tags]
    assert len(cell.chips) == 3


def test_what_comes_from_a_model_is_text() -> None:
    hostile = ["<script>alert(1)</script>", '"><img src=x onerror=y>', "&amp;", "{0.__class__}", "a\nb\ud800\u202e"]
    cell = Cell(make(5, tokens=hostile, diagnostics={"warnings": []}))
    assert {tag for tag, _ in cell.tags} == {"div", "span", "img"} and len([t for t, _ in cell.tags if t == "img"]) == 1
    assert [text for text, _ in cell.chips][:4] == hostile[:4]
    cell.text.encode()
    told = Cell(make(grids=(), diagnostics={"warnings": ["no place: <script>"]}))
    assert "no place: <script>" in told.text and "script" not in [tag for tag, _ in told.tags]


def test_its_size_is_bounded() -> None:
    long = make(2000, tokens=["x" * 5000] * 2000, images=(noise(3000, 3000),))
    html = long._repr_html_()
    assert len(html) < 1_200_000
    cell = Cell(long)
    assert len(cell.chips) == 400 and "and 1,600 more" in cell.text
    assert {len(text) for text, _ in cell.chips} == {80}
    assert "more" not in Cell(make(400)).text


@given(explanations())
@QUICK
def test_every_explanation_shows_itself(explanation: Explanation) -> None:
    explanation._repr_html_().encode()
    Cell(explanation)
