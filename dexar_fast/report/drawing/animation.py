"""Animates an answer: a frame for each of its pieces, with its map and under it the answer so far."""

from __future__ import annotations

import io
import math
import numbers
from collections.abc import Iterator

from PIL import Image, ImageDraw

from dexar_fast.errors import InputError
from dexar_fast.report import placing, scales, sizes, words
from dexar_fast.report.drawing import colours, lettering
from dexar_fast.report.drawing.lettering import Word
from dexar_fast.report.drawing.overlay import draw_overlay
from dexar_fast.results.schema import Result

_NARROWEST, _LONGEST_PAUSE = 64, 60.0
_STEEPEST = 2.0  # height over width: a taller picture becomes narrower than the frame
_LINES, _MARGIN = 3, 10
_PAPER, _WRITTEN = "#15131a", "#f0edf5"
_UNWEIGHTED = "#35313f"


def frames(explanation: Result, picture: Image.Image, image: int, by: str, width: int, scale: str) -> list[Image.Image]:
    """See `Explanation.frames`; the map of the image numbered `image` is drawn over `picture`."""
    if not isinstance(width, numbers.Integral) or width < _NARROWEST:
        raise InputError(f"width must be an integer from {_NARROWEST}, not {width!r}")
    pieces = words.pieces(explanation, by)
    small = sizes.scaled(picture, min(width / picture.width, _STEEPEST * width / picture.height))
    writing = _Writing(pieces, explanation.weighted, int(width))
    shown = []
    for n, (values, span) in enumerate(zip(pieces.maps, pieces.spans, strict=True)):
        canvas = placing.canvas(explanation, values, image, small.size)
        strength = scales.strength(explanation, slice(span.start, span.stop), scale, filtered=True)
        overlay = draw_overlay(small, canvas, strength)
        frame = Image.new("RGB", (int(width), small.height + writing.height), _PAPER)
        frame.paste(overlay, ((frame.width - small.width) // 2, 0))
        writing.draw(frame, small.height, n)
        shown.append(frame)
    return shown


def gif(pictures: list[Image.Image], seconds: float) -> bytes:
    """See `Explanation.to_gif`."""
    if not isinstance(seconds, numbers.Real) or not 0 < float(seconds) <= _LONGEST_PAUSE:
        raise InputError(f"seconds must lie between 0 and {_LONGEST_PAUSE:g}, not {seconds!r}")
    if not pictures:
        raise InputError("there are no tokens to animate: explain an answer that holds some")
    buffer = io.BytesIO()
    first, *others = (picture.quantize(128) for picture in pictures)
    pause = max(20, round(float(seconds) * 1000))  # browsers slow down what is faster
    first.save(buffer, format="GIF", save_all=True, append_images=others, duration=pause, loop=0)
    return buffer.getvalue()


class _Writing:
    """The answer in lines as wide as the frames. Each frame shows the last few lines."""

    def __init__(self, pieces: words.Pieces, weighted: bool, width: int) -> None:
        self._size = max(11, width // 26)
        self._line = round(self._size * 1.6)
        self._width = width
        self._direction = words.direction("".join(pieces.texts))
        self._lines = list(lettering.wrapped(_parts(pieces.texts), self._size, width - 2 * _MARGIN))
        heaviest = pieces.weights.max(initial=0)
        self._colours = [colours.of(w / heaviest) if weighted and w > 0 else None for w in pieces.weights]

    @property
    def height(self) -> int:
        return _LINES * self._line + 2 * _MARGIN

    def draw(self, frame: Image.Image, top: int, current: int) -> None:
        """Draws the lines up to the piece `current`, and that piece on its colour."""
        written = [[word for word in line if word[0] <= current] for line in self._lines]
        last = [line for line in written if line][-_LINES:]
        for row, line in enumerate(last):
            self._draw_line(ImageDraw.Draw(frame), line, top + _MARGIN + row * self._line, current)

    def _draw_line(self, draw: ImageDraw.ImageDraw, line: list[Word], top: int, current: int) -> None:
        lengths = {text: lettering.length(text, self._size) for _, text in line}
        all_of_it = math.fsum(lengths[text] for _, text in line)
        left = self._width - _MARGIN - all_of_it if self._direction == "rtl" else float(_MARGIN)
        for piece, text in lettering.from_the_left(line, self._direction):
            ink = _WRITTEN
            if piece == current and not text.isspace():
                ink = self._highlight(draw, left, top, lengths[text], piece)
            lettering.draw_text(draw, (left, top + 0.2 * self._size), text, self._size, ink)
            left += lengths[text]

    def _highlight(self, draw: ImageDraw.ImageDraw, left: float, top: int, length: float, piece: int) -> str:
        """Draws the background of a piece; returns the colour in which its text can be read on it."""
        colour = self._colours[piece]
        ground = _UNWEIGHTED if colour is None else colours.css(colour)
        draw.rounded_rectangle((left - 2, top, left + length + 2, top + self._line - 3), 4, ground)
        return _WRITTEN if colour is None else colours.ink_on(colour)


def _parts(texts: list[str]) -> Iterator[list[Word]]:
    """The words of each paragraph; signs stand for line ends."""
    line: list[Word] = []
    for piece, text in enumerate(texts):
        before, core, after = words.shown(text)
        for part in (before, core, after):
            head, *paragraphs = part.split("\n")
            line += [(piece, head)] if head else []
            for paragraph in paragraphs:
                yield line
                line = [(piece, paragraph)] if paragraph else []
    yield line
