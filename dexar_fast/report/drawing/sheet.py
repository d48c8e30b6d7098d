"""A page of titled pictures like that of `Explanation.plot`, drawn by Pillow alone: loading matplotlib takes longer."""

from __future__ import annotations

import math
from collections.abc import Iterator

from PIL import Image, ImageDraw

from dexar_fast.report import placing, scales, sizes
from dexar_fast.report.drawing import caption, colours, lettering, titles
from dexar_fast.report.drawing.overlay import LEVELS, draw_overlay
from dexar_fast.results.schema import Result

_MOST_TOKENS, _COLUMNS = 28, 6
_PANEL, _NARROWEST = 224, 760  # pixels
_STEEPEST = 2.5  # height over width
_GAP, _LETTERS = 12, 14
_LINE = round(1.4 * _LETTERS)
_BAR = 14
_PAPER, _INK = "#ffffff", "#1d1b22"


def draw_sheet(explanation: Result) -> Image.Image:
    """The question and the answer, the image, the maps of the answer and of its tokens by weight, what colours mean.

    Of an answer of more than 28 tokens, those of the greatest weight, and the page says so. The image is the first that
    has a map.

    Raises:
        InputError: a model of unknown geometry.
    """
    placing.check_geometry(explanation)
    tokens = scales.weightiest(explanation, _MOST_TOKENS)
    panels = list(_panels(explanation, tokens))
    columns = min(_COLUMNS, len(panels))
    width = max(_NARROWEST, _GAP + columns * (_PANEL + _GAP))
    above = [*caption.lines(explanation, _LETTERS, width - 2 * _GAP), titles.left_out(explanation, tokens)]
    head = _text([line for line in above if line], width)
    body = _rows(panels, titles.of(explanation, tokens, True), columns, width)
    return _stacked([head, body, _legend(explanation, width)])


def _panels(explanation: Result, tokens: list[int]) -> Iterator[Image.Image]:
    """The image, then its overlays."""
    index = min(grid.image for grid in explanation.grids)
    picture = explanation.images[index]
    small = sizes.scaled(picture, min(_PANEL / picture.width, _STEEPEST * _PANEL / picture.height))
    yield small
    for token in (None, *tokens):
        values = explanation.sequence_map if token is None else explanation.token_maps[token]
        canvas = placing.canvas(explanation, values.numpy(), index, small.size)
        yield draw_overlay(small, canvas, scales.strength(explanation, token, "weight", True))


def _rows(panels: list[Image.Image], over: list[str], columns: int, width: int) -> Image.Image:
    """The panels, each under its title, from left to right."""
    step = 2 * _LINE + panels[0].height + _GAP
    page = _page(width, step * math.ceil(len(panels) / columns))
    for number, (panel, title) in enumerate(zip(panels, over, strict=True)):
        row, column = divmod(number, columns)
        left, top = _GAP + column * (_PANEL + _GAP), row * step + 2 * _LINE
        lines = title.split("\n")
        _write(page, lines, left, top - _LINE * len(lines))
        page.paste(panel, (left, top))
    return page


def _legend(explanation: Result, width: int) -> Image.Image:
    """The colours from 0 to 1, and what they mean."""
    lines = [
        line
        for part in scales.legend(explanation, True).split("\n")
        for line in caption.broken(part, _LETTERS, width - 2 * _GAP)
    ]
    page = _page(width, _BAR + _LINE * (1 + len(lines)) + _GAP)
    ramp = Image.fromarray(colours.palette()[None]).resize((_NARROWEST - 8 * _GAP, _BAR))
    page.paste(ramp, (_GAP, 0))
    for level in range(LEVELS + 1):
        _write(page, [f"{level / LEVELS:g}"], _GAP + round(level / LEVELS * ramp.width), _BAR)
    _write(page, lines, _GAP, _BAR + _LINE)
    return page


def _text(lines: list[str], width: int) -> Image.Image:
    page = _page(width, 2 * _GAP + _LINE * len(lines))
    _write(page, lines, _GAP, _GAP)
    return page


def _write(page: Image.Image, lines: list[str], left: int, top: int) -> None:
    for row, line in enumerate(lines):
        lettering.draw_text(ImageDraw.Draw(page), (left, top + row * _LINE), line, _LETTERS, _INK)


def _stacked(parts: list[Image.Image]) -> Image.Image:
    page = _page(parts[0].width, sum(part.height for part in parts))
    top = 0
    for part in parts:
        page.paste(part, (0, top))
        top += part.height
    return page


def _page(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), _PAPER)
