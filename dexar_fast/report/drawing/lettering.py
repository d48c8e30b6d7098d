"""Text on pictures: measured, broken into lines, ordered for reading, drawn in fonts that have its glyphs."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import groupby

from PIL import ImageDraw, ImageFont

from dexar_fast.report import words
from dexar_fast.report.drawing.fonts import MISSING, font_of

Word = tuple[int, str]  # which piece, and its text or a part of it


def wrapped(paragraphs: Iterator[list[Word]], size: int, width: float) -> Iterator[list[Word]]:
    """Lines no wider than `width` pixels, in letters of `size` pixels; none begins with white space."""
    for paragraph in paragraphs:
        line: list[Word] = []
        taken = 0.0
        for piece, text in _fitting(paragraph, size, width):
            needed = length(text, size)
            if line and taken + needed > width:
                yield line
                line, taken = [], 0.0
            if line or not text.isspace():
                line.append((piece, text))
                taken += needed
        yield line


def _fitting(words_of_any_length: list[Word], size: int, width: float) -> Iterator[Word]:
    """The words; one that is wider than a line comes in parts, cut between characters."""
    for piece, text in words_of_any_length:
        part = ""
        for span in words.cut(list(text), "token") if length(text, size) > width else []:
            character = text[span.start : span.stop]
            if part and length(part + character, size) > width:
                yield piece, part
                part = ""
            part += character
        yield piece, part or text


def from_the_left(line: list[Word], direction: str) -> list[Word]:
    """The words of a line from left to right: rule L2 of the Unicode bidirectional algorithm."""
    placed = list(zip(_levels([text for _, text in line], direction), line, strict=True))
    return [word for _, word in _turned(_turned(placed, 2), 1)]


def _turned(placed: list[tuple[int, Word]], depth: int) -> list[tuple[int, Word]]:
    """The words, with each run of level `depth` or deeper reversed."""
    runs = groupby(placed, lambda word: word[0] >= depth)
    return [word for inside, run in runs for word in (reversed(list(run)) if inside else run)]


def _levels(texts: list[str], direction: str) -> list[int]:
    """The bidirectional level of each text; odd is right to left. Spaces and signs take the lower neighbour's."""
    base = 1 if direction == "rtl" else 0
    known = [_level(text, base) for text in texts]
    levels: list[int] = []
    for n, level in enumerate(known):
        before = levels[-1] if levels else base
        after = next((later for later in known[n:] if later is not None), base)
        levels.append(min(before, after) if level is None else level)
    return levels


def _level(text: str, base: int) -> int | None:
    """The level of one text; None if it has no direction of its own. Numbers run from left to right in any script."""
    kinds = {unicodedata.bidirectional(character) for character in text}
    if not kinds & {"L", "R", "AL", "EN", "AN"}:
        return None
    return 1 if words.direction(text) == "rtl" else 2 * base


def _runs(text: str, size: int) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
    """Parts of a text with a font that has their glyphs; a sign where none has."""
    for path, characters in groupby(text, font_of):
        run = "".join(characters)
        yield (run if path else MISSING * len(run)), _font(path or font_of(MISSING), size)


def length(text: str, size: int) -> float:
    """The width of a text in pixels."""
    return math.fsum(font.getlength(run) for run, font in _runs(text, size))


def draw_text(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, ink: str) -> None:
    """Draws a line, its words in the order for reading, whose upper left corner is `at`."""
    x, y = at
    words_in_order = from_the_left([(0, part) for part in re.findall(r"\s+|\S+", text)], "ltr")
    for run, font in (run for _, part in words_in_order for run in _runs(part, size)):
        draw.text((x, y + size), run, ink, font, anchor="ls")
        x += font.getlength(run)


@cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
