"""The question and the answer of an explanation in lines, to stand beside a picture or under it."""

from __future__ import annotations

import re

from PIL import Image, ImageDraw

from dexar_fast.report import words
from dexar_fast.report.drawing import colours, fonts, lettering
from dexar_fast.results.schema import Result

_MOST_LINES = 8  # of each
_NARROWEST = 320
_PAPER, _INK, _SOFT = "#ffffff", "#1d1b22", "#625e6b"


def lines(explanation: Result, size: int, width: float) -> list[str]:
    """The question, where it is known, and the answer, in lines of `width` pixels and letters of `size` pixels."""
    said = (("Question", words.question(explanation)), ("Answer", words.answer(explanation)))
    return [line for name, text in said if text.strip() for line in broken(f"{name}: {text}", size, width)]


def under(picture: Image.Image, explanation: Result) -> Image.Image:
    """A picture of a map with a legend of its colours, the question and the answer under it."""
    width = max(picture.width, _NARROWEST)
    size = max(12, width // 32)
    margin, line = size, round(1.5 * size)
    written = lines(explanation, size, width - 2 * margin)
    page = Image.new("RGB", (width, picture.height + 2 * margin + line * (1 + len(written))), _PAPER)
    page.paste(picture, ((width - picture.width) // 2, 0))
    top = picture.height + margin
    _draw_legend(page, (margin, top), size)
    for row, text in enumerate(written, 1):
        lettering.draw_text(ImageDraw.Draw(page), (margin, top + row * line), text, size, _INK)
    return page


def _draw_legend(page: Image.Image, at: tuple[int, int], size: int) -> None:
    """How much the answer depended on a place, from least to most."""
    left, top = at
    for text, bar in (("Depended on: least", True), ("most", False)):
        lettering.draw_text(ImageDraw.Draw(page), (left, top), text, size, _SOFT)
        left += round(lettering.length(text, size)) + size // 2
        if bar:
            ramp = Image.fromarray(colours.palette()[None]).resize((7 * size, round(0.7 * size)))
            page.paste(ramp, (left, top + round(0.35 * size)))
            left += ramp.width + size // 2


def broken(text: str, size: int, width: float) -> list[str]:
    """A text in lines; of one that is too long, the first of them and an ellipsis."""
    plain = fonts.drawable(words.shown(" ".join(text.split()))[1])
    parts = [(0, part) for part in re.findall(r"\s+|\S+", plain)]
    texts = ["".join(part for _, part in line).strip() for line in lettering.wrapped(iter([parts]), size, width)]
    if len(texts) > _MOST_LINES:
        last = texts[_MOST_LINES - 1]
        while lettering.length(f"{last}…", size) > width:
            last = last[:-1]
        texts = [*texts[: _MOST_LINES - 1], f"{last}…"]
    return texts
