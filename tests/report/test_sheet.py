"""The page of tokens that the command writes, drawn without matplotlib."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from made_explanations import grey, make
from matplotlib.font_manager import FontProperties, findfont, get_font
from PIL import Image, ImageDraw

from dexar_fast import Explanation, InputError
from dexar_fast.report import sizes
from dexar_fast.report.drawing import colours, fonts, lettering, sheet
from dexar_fast.vision.grid import Grid

PANEL, GAP = 224, 10


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written on a picture."""
    texts: list[str] = []
    draw = lettering.draw_text

    def noted(on: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, ink: str) -> None:
        texts.append(text)
        draw(on, at, text, size, ink)

    monkeypatch.setattr(lettering, "draw_text", noted)
    return texts


def panels(page: Image.Image, panel: Image.Image, count: int) -> list[np.ndarray]:
    """The pictures of the first row, found by the first of them."""
    pixels, wanted = np.asarray(page), np.asarray(panel)
    (top,) = (
        y for y in range(page.height - panel.height) if (pixels[y : y + len(wanted), GAP : GAP + PANEL] == wanted).all()
    )
    lefts = [GAP + n * (PANEL + GAP) for n in range(count)]
    return [pixels[top : top + panel.height, left : left + PANEL] for left in lefts]


def test_the_image_the_answer_and_the_tokens_by_weight(written: list[str]) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 280, 3), dtype=np.uint8))
    explanation = make(
        3, token_weights=torch.tensor([0.0, 0.5, 2.0]), images=(picture,), metadata={"question": "What?"}
    )
    page = sheet.draw_sheet(explanation)
    small = sizes.scaled(picture, PANEL / 280)
    shown = panels(page, small, 5)
    np.testing.assert_array_equal(shown[2], np.asarray(small), "weight 0 shows no heat")
    for pixels, token in zip(shown[1:], (None, 0, 1, 2), strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(explanation.overlay(token, small, scale="weight")))
    assert written[:2] == ["Question: What?", "Answer: word0 word1 word2"]
    assert written[2:10] == [
        "image", "whole answer", "word0", "weight 0: nothing shown", "word1", "weight 0.5", "word2", "weight 2",
    ]  # fmt: skip
    assert written[-5:] == ["0", "0.25", "0.5", "0.75", "1"]
    meaning = " ".join(written[10:-5])
    assert "the largest weight (2), so weight 0 shows no heat. Lines at 0.25, 0.5 and 0.75." in meaning
    ramp = np.asarray(Image.fromarray(colours.palette()[None]).resize((760 - 8 * GAP, 14)))
    rows = np.asarray(page)[:, GAP : GAP + ramp.shape[1]]
    assert any((rows[y : y + 14] == ramp).all() for y in range(page.height - 14))


def test_of_a_long_answer_the_weightiest_tokens(written: list[str]) -> None:
    explanation = make(40, token_weights=torch.arange(40.0))
    page = sheet.draw_sheet(explanation)
    assert "28 of 40 tokens: those of the greatest weight" in written
    assert [text for text in written if text in explanation.text.split()] == [f"word{n}" for n in range(12, 40)]
    assert page.width == GAP + 6 * (PANEL + GAP)


@pytest.mark.parametrize("size", [(3, 900), (900, 3), (1, 1), (4000, 3000)])
def test_pictures_of_any_shape_and_answers_of_no_token(size: tuple[int, int]) -> None:
    page = sheet.draw_sheet(make(0, images=(grey(*size),)))
    assert page.width == 760 and 100 < page.height < 900


def test_the_first_image_with_a_map() -> None:
    grids = (Grid(1, 0, 3, 4),)
    red, blue = (Image.new("RGB", (PANEL, 60), colour) for colour in ("red", "blue"))
    assert panels(sheet.draw_sheet(make(1, grids=grids, images=(red, blue))), blue, 1)


def test_without_geometry_there_is_no_page() -> None:
    with pytest.raises(InputError, match=r"geometry .* unknown"):
        sheet.draw_sheet(make(grids=()))


def test_any_token_can_be_a_title() -> None:
    tokens = ["$x_1$", "▁the", "\n", "", "中文", "\U0001f642", "\ud800", "\x00\x07", "שלום", "a" * 90]
    sheet.draw_sheet(make(len(tokens), tokens=tokens))


def test_the_first_font_draws_what_matplotlib_says() -> None:
    path = findfont(FontProperties(family=["DejaVu Sans"]))
    known = get_font(path)
    for code in [*range(0x250), *range(0x370, 0x3000, 7), *range(0x3000, 0x20000, 61)]:
        if unicodedata.category(chr(code)) not in ("Cc", "Cs", "Co", "Cn"):
            assert (fonts.font_of(chr(code)) == path) == bool(known.get_char_index(code)), hex(code)


def test_no_default_output_loads_matplotlib(tmp_path: Path) -> None:
    make().save(tmp_path / "x")
    code = (
        "import sys; from pathlib import Path; from dexar_fast import Explanation; "
        "from dexar_fast.cli.output import results; "
        "results.write(Explanation.load(sys.argv[1]), Path(sys.argv[2]), 'token'); print('matplotlib' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x"), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
    with Image.open(tmp_path / "tokens.png") as page:
        assert page.convert("RGB").tobytes() == sheet.draw_sheet(Explanation.load(tmp_path / "x")).tobytes()
