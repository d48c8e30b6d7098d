"""Explanations of one answer in one picture: a row for each, in it the whole answer and the same tokens."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from dexar_fast.errors import InputError
from dexar_fast.report import placing, scales, sizes, words
from dexar_fast.report.drawing import caption, colours, fonts, lettering, paper
from dexar_fast.report.drawing.paper import GAP
from dexar_fast.results.schema import Result
from dexar_fast.settings import positive

_NARROWEST = 320
_STEEPEST = 2.0  # height over width: the panels of a taller picture are narrower than their column
_LABELS = 0.2  # of the width, at most
_LEAST = 12  # pixels of a panel's width


def tokens_shown(explanations: Sequence[Result], max_tokens: Any) -> list[int]:
    """The tokens of the greatest weight where a method weighs them (DEX-AR's before others), else evenly spaced ones.

    Raises:
        InputError: `max_tokens` is no positive number.
    """
    weighty = [each for each in explanations if each.weighted and bool(each.token_weights.any())]
    if weighty:
        return scales.weightiest(min(weighty, key=lambda each: each.head_weights.numel() == 0), max_tokens)
    tokens = explanations[0].tokens
    spoken = [t for t, token in enumerate(tokens) if any(map(str.isalnum, token))] or list(range(len(tokens)))
    count = min(positive("max_tokens", max_tokens), len(spoken))
    return [spoken[int(place)] for place in np.linspace(0, len(spoken) - 1, count).round()]


def draw_compared(
    explanations: Sequence[Result], titles: Sequence[str], tokens: Sequence[int], width: Any
) -> Image.Image:
    """The question, the answer, the rows with their titles, and what the colours mean: RGB, `width` pixels wide.

    The maps lie over the first image that has one.

    Raises:
        InputError: `width` is no whole number from 320, a model of unknown geometry, an image that was not kept.
    """
    width = _checked(width)
    placing.check_geometry(explanations[0])
    if not explanations[0].images:
        raise InputError("no image was kept: there is nothing to draw the maps over")
    size = max(9, min(15, width // 72))
    parts = [
        paper.written(caption.lines(explanations[0], size, width - 2 * GAP), size, width),
        _table(explanations, titles, tokens, size, width),
        _legend(explanations, titles, size, width),
    ]
    return paper.stacked(parts)


def _checked(width: Any) -> int:
    if not isinstance(width, numbers.Integral) or width < _NARROWEST:
        raise InputError(f"width must be an integer from {_NARROWEST}, not {width!r}")
    return int(width)


def _table(
    explanations: Sequence[Result], titles: Sequence[str], tokens: Sequence[int], size: int, width: int
) -> Image.Image:
    """The panels, the titles of rows on the left, those of columns above."""
    left = GAP + math.ceil(min(_LABELS * width, max(lettering.length(title, size) for title in titles)))
    step = (width - left - GAP) // (1 + len(tokens))
    if step < GAP + _LEAST:
        raise InputError(f"{len(tokens)} tokens do not fit into {width} pixels: choose fewer, or a greater width")
    image = min(grid.image for grid in explanations[0].grids)
    picture = explanations[0].images[image]
    small = sizes.scaled(picture, min((step - GAP) / picture.width, _STEEPEST * (step - GAP) / picture.height))
    line = round(1.6 * size)
    page = paper.blank(width, line + len(titles) * (small.height + GAP))
    for column, name in enumerate(["whole answer", *(explanations[0].tokens[token] for token in tokens)]):
        paper.write(page, (left + GAP + column * step, 0), _short(name, size, step - GAP), size)
    for row, (explanation, title) in enumerate(zip(explanations, titles, strict=True)):
        top = line + row * (small.height + GAP)
        paper.write(page, (GAP, top + small.height // 2 - size), _short(title, size, left - GAP), size)
        for column, panel in enumerate(paper.panels(explanation, tokens, image, small)):
            page.paste(panel, (left + GAP + column * step, top))
    return page


def _legend(explanations: Sequence[Result], titles: Sequence[str], size: int, width: int) -> Image.Image:
    """The colours from 0 to 1, and what they mean."""
    lines = caption.broken(_meaning(explanations, titles), size, width - 2 * GAP)
    page = paper.written(lines, size, width, above=1)
    ramp = Image.fromarray(colours.palette()[None]).resize((width // 3, size))
    digit = round(lettering.length("0", size)) + size // 2
    page.paste(ramp, (GAP + digit, GAP))
    paper.write(page, (GAP, GAP - size // 6), "0", size)
    paper.write(page, (GAP + digit + ramp.width + size // 2, GAP - size // 6), "1", size)
    return page


def _meaning(explanations: Sequence[Result], titles: Sequence[str]) -> str:
    own = "Heat: each map from its lowest value (0) to its highest (1), with lines at 0.25, 0.5 and 0.75."
    weighted = [title for title, each in zip(titles, explanations, strict=True) if each.weighted]
    if not weighted:
        return own
    scale = "the map of a token times its weight / the largest weight, so that weight 0 shows no heat."
    return f"{own} {', '.join(weighted)}: {scale}"


def _short(text: str, size: int, width: float) -> str:
    """A text on one line, cut where it is wider than `width` pixels."""
    plain = fonts.drawable(words.shown(" ".join(text.split()) or text)[1])
    if lettering.length(plain, size) <= width:
        return plain
    while plain and lettering.length(f"{plain}…", size) > width:
        plain = plain[:-1]
    return f"{plain}…"
