"""An explanation as a notebook shows it: the answer in the colours of its weights, and its map; a short piece of HTML.

It loads and runs nothing. Whatever comes from a user or a model is escaped, and its size is bounded.
"""

from __future__ import annotations

import base64
import io

from markupsafe import Markup
from PIL import Image

from dexar_fast.errors import InputError
from dexar_fast.report import placing, plain_words, sizes, words
from dexar_fast.report.drawing import colours
from dexar_fast.report.drawing.overlay import draw_overlay
from dexar_fast.results.schema import Result

_WIDEST, _HIGHEST = 480, 640  # pixels
_MOST_CHIPS, _LONGEST_CHIP = 400, 80
_CELL = Markup(
    '<div style="max-width:{}px"><div dir="{}" style="white-space:pre-wrap;line-height:1.9">{}</div>{}{}</div>'
)
_CHIP = Markup('{}<span title="{}" style="{}">{}</span>{}')
_COLOURED = "background:{};color:{};border-radius:3px;padding:1px 2px"
_PICTURE = Markup('<img alt="The map of the whole answer over the image" style="max-width:100%" src="{}">')
_NOTE = Markup('<div style="font-size:smaller;opacity:.75">{}</div>')


def html(explanation: Result) -> str:
    """See `Explanation._repr_html_`."""
    pieces = words.pieces(explanation, "token")
    answer = Markup("").join(_chips(pieces, explanation.weighted))
    if (left := len(pieces.texts) - _MOST_CHIPS) > 0:
        answer += f" \N{HORIZONTAL ELLIPSIS} and {left:,} more"
    try:
        picture = _PICTURE.format(_png(_overlay(explanation)))
    except InputError as error:
        picture = _NOTE.format(f"No map: {_cut(str(error), 400)}")
    note = plain_words.counted(len(explanation), "tokens")
    if explanation.weighted:
        note += f"; the brighter, the greater the weight, up to {pieces.weights.max(initial=0):.3g}"
    return str(_CELL.format(_WIDEST, words.direction("".join(pieces.texts)), answer, picture, _NOTE.format(note)))


def _chips(pieces: words.Pieces, weighted: bool) -> list[Markup]:
    heaviest = pieces.weights.max(initial=0)
    chips = []
    for text, weight in zip(pieces.texts[:_MOST_CHIPS], pieces.weights, strict=False):
        before, core, after = words.shown(_cut(text, _LONGEST_CHIP))
        style = ""
        if weighted and weight > 0:
            colour = colours.of(weight / heaviest)
            style = _COLOURED.format(colours.css(colour), colours.ink_on(colour))
        chips.append(_CHIP.format(before, f"weight {weight:.3g}" if weighted else "", style, core, after))
    return chips


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _overlay(explanation: Result) -> Image.Image:
    """The map of the whole answer over the first image that has one. Raises InputError without a map or an image."""
    placing.check_geometry(explanation)
    if not explanation.images:
        raise InputError("the image was not kept")
    image = min(grid.image for grid in explanation.grids)
    small = sizes.within(explanation.images[image], _WIDEST, _HIGHEST)
    return draw_overlay(small, placing.canvas(explanation, explanation.sequence_map.numpy(), image, small.size))


def _png(image: Image.Image) -> str:
    """As a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
