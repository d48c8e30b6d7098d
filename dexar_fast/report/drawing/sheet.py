"""A page of titled pictures like that of `Explanation.plot`, drawn by Pillow alone: loading matplotlib takes longer."""

from __future__ import annotations

import math

from PIL import Image

from dexar_fast.report import placing, scales, sizes
from dexar_fast.report.drawing import caption, colours, paper, titles
from dexar_fast.report.drawing.overlay import LEVELS
from dexar_fast.report.drawing.paper import GAP
from dexar_fast.results.schema import Result

_MOST_TOKENS, _COLUMNS = 28, 6
_PANEL, _NARROWEST = 224, 760  # pixels
_STEEPEST = 2.5  # height over width
_LETTERS = 14
_LINE = round(1.4 * _LETTERS)
_BAR = 14


def draw_sheet(explanation: Result) -> Image.Image:
    """The question and the answer, the image, the maps of the answer and of its tokens by weight, what colours mean.

    Of an answer of more than 28 tokens, those of the greatest weight, and the page says so. The image is the first that
    has a map.

    Raises:
        InputError: a model of unknown geometry.
    """
    placing.check_geometry(explanation)
    tokens = scales.weightiest(explanation, _MOST_TOKENS)
    index = min(grid.image for grid in explanation.grids)
    picture = explanation.images[index]
    small = sizes.scaled(picture, min(_PANEL / picture.width, _STEEPEST * _PANEL / picture.height))
    panels = [small, *paper.panels(explanation, tokens, index, small)]
    columns = min(_COLUMNS, len(panels))
    width = max(_NARROWEST, GAP + columns * (_PANEL + GAP))
    above = [*caption.lines(explanation, _LETTERS, width - 2 * GAP), titles.left_out(explanation, tokens)]
    head = paper.written([line for line in above if line], _LETTERS, width)
    body = _rows(panels, titles.of(explanation, tokens, True), columns, width)
    return paper.stacked([head, body, _legend(explanation, width)])


def _rows(panels: list[Image.Image], over: list[str], columns: int, width: int) -> Image.Image:
    """The panels, each under its title, from left to right."""
    step = 2 * _LINE + panels[0].height + GAP
    page = paper.blank(width, step * math.ceil(len(panels) / columns))
    for place, (panel, title) in enumerate(zip(panels, over, strict=True)):
        row, column = divmod(place, columns)
        left, top = GAP + column * (_PANEL + GAP), row * step + 2 * _LINE
        lines = title.split("\n")
        for number, line in enumerate(lines):
            paper.write(page, (left, top - _LINE * (len(lines) - number)), line, _LETTERS)
        page.paste(panel, (left, top))
    return page


def _legend(explanation: Result, width: int) -> Image.Image:
    """The colours from 0 to 1, and what they mean."""
    lines = [
        line
        for part in scales.legend(explanation, True).split("\n")
        for line in caption.broken(part, _LETTERS, width - 2 * GAP)
    ]
    page = paper.written(lines, _LETTERS, width, above=2)
    ramp = Image.fromarray(colours.palette()[None]).resize((_NARROWEST - 8 * GAP, _BAR))
    page.paste(ramp, (GAP, 0))
    for level in range(LEVELS + 1):
        paper.write(page, (GAP + round(level / LEVELS * ramp.width), _BAR), f"{level / LEVELS:g}", _LETTERS)
    return page
