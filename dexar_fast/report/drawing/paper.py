"""Pages that Pillow draws: strips of text and of pictures, one under the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw

from dexar_fast.report import placing, scales
from dexar_fast.report.drawing import lettering
from dexar_fast.report.drawing.overlay import draw_overlay
from dexar_fast.results.schema import Result

GAP = 10
PAPER, INK = "#ffffff", "#1d1b22"
_SPACING = 1.5  # lines of text, over the size of their letters


def blank(width: int, height: int) -> Image.Image:
    """An empty strip."""
    return Image.new("RGB", (width, height), PAPER)


def write(strip: Image.Image, at: tuple[int, int], text: str, size: int) -> None:
    """Writes one line with its upper left corner at a point."""
    lettering.draw_text(ImageDraw.Draw(strip), at, text, size, INK)


def height_of(lines: int, size: int) -> int:
    """The height of a strip of so many lines."""
    return 2 * GAP + lines * round(_SPACING * size)


def written(lines: Sequence[str], size: int, width: int, above: int = 0) -> Image.Image:
    """A strip of lines of text, below room for `above` more."""
    strip = blank(width, height_of(above + len(lines), size))
    for row, line in enumerate(lines, above):
        write(strip, (GAP, GAP + row * round(_SPACING * size)), line, size)
    return strip


def stacked(strips: Sequence[Image.Image]) -> Image.Image:
    """Strips of one width as a page."""
    page, top = blank(strips[0].width, sum(strip.height for strip in strips)), 0
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height
    return page


def panels(explanation: Result, tokens: Sequence[int], image: int, small: Image.Image) -> Iterator[Image.Image]:
    """The map of the whole answer over a picture, then those of the tokens, by weight where there are weights."""
    for token in (None, *tokens):
        values = explanation.sequence_map if token is None else explanation.token_maps[token]
        canvas = placing.canvas(explanation, values.numpy(), image, small.size)
        yield draw_overlay(small, canvas, scales.strength(explanation, token, "weight", True))
