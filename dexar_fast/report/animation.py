"""Animates an answer: a frame for each of its pieces, with its map and under it the answer so far."""

from __future__ import annotations

import io
import math
import numbers
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import groupby

from PIL import Image, ImageDraw, ImageFont

from dexar_fast.errors import InputError
from dexar_fast.report import colours, placing, words
from dexar_fast.report.figure import MISSING, font_of
from dexar_fast.report.overlay import draw_overlay
from dexar_fast.results.schema import Result

_NARROWEST, _LONGEST_PAUSE = 64, 60.0
_STEEPEST = 2.0  # height over width: a taller picture becomes narrower than the frame
_LINES, _MARGIN = 3, 10
_PAPER, _WRITTEN = "#15131a", "#f0edf5"
_UNWEIGHTED = "#35313f"

Word = tuple[int, str]  # which piece, and its text or a part of it


def frames(explanation: Result, picture: Image.Image, image: int, by: str, width: int) -> list[Image.Image]:
    """See `Explanation.frames`; the map of the image numbered `image` is drawn over `picture`."""
    if not isinstance(width, numbers.Integral) or width < _NARROWEST:
        raise InputError(f"width must be an integer from {_NARROWEST}, not {width!r}")
    pieces = words.pieces(explanation, by)
    small = _fitted(picture, int(width))
    writing = _Writing(pieces, int(width))
    shown = []
    for n, values in enumerate(pieces.maps):
        frame = Image.new("RGB", (int(width), small.height + writing.height), _PAPER)
        overlay = draw_overlay(small, placing.paint(explanation, values, image, small.size))
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


def _fitted(picture: Image.Image, width: int) -> Image.Image:
    scale = min(width / picture.width, _STEEPEST * width / picture.height)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


class _Writing:
    """The answer in lines as wide as the frames. Each frame shows the last few lines."""

    def __init__(self, pieces: words.Pieces, width: int) -> None:
        self._size = max(11, width // 26)
        self._line = round(self._size * 1.6)
        self._width = width
        self._direction = words.direction("".join(pieces.texts))
        self._lines = list(_wrapped(_parts(pieces.texts), self._size, width - 2 * _MARGIN))
        heaviest = pieces.weights.max(initial=0)
        self._colours = [colours.of(w / heaviest) if w > 0 else None for w in pieces.weights]

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
        lengths = {text: _length(text, self._size) for _, text in line}
        all_of_it = math.fsum(lengths[text] for _, text in line)
        left = self._width - _MARGIN - all_of_it if self._direction == "rtl" else float(_MARGIN)
        for piece, text in _from_the_left(line, self._direction):
            ink = _WRITTEN
            if piece == current and not text.isspace():
                ink = self._highlight(draw, left, top, lengths[text], piece)
            _draw_text(draw, (left, top + 0.2 * self._size), text, self._size, ink)
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


def _wrapped(paragraphs: Iterator[list[Word]], size: int, width: float) -> Iterator[list[Word]]:
    for paragraph in paragraphs:
        line: list[Word] = []
        length = 0.0
        for piece, text in _fitting(paragraph, size, width):
            needed = _length(text, size)
            if line and length + needed > width:
                yield line
                line, length = [], 0.0
            if line or not text.isspace():
                line.append((piece, text))
                length += needed
        yield line


def _fitting(words_of_any_length: list[Word], size: int, width: float) -> Iterator[Word]:
    """The words; one that is wider than a line comes in parts, cut between characters."""
    for piece, text in words_of_any_length:
        part = ""
        for span in words.cut(list(text), "token") if _length(text, size) > width else []:
            character = text[span.start : span.stop]
            if part and _length(part + character, size) > width:
                yield piece, part
                part = ""
            part += character
        yield piece, part or text


def _from_the_left(line: list[Word], direction: str) -> list[Word]:
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


def _length(text: str, size: int) -> float:
    return math.fsum(font.getlength(run) for run, font in _runs(text, size))


def _draw_text(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, ink: str) -> None:
    x, y = at
    for run, font in _runs(text, size):
        draw.text((x, y + size), run, ink, font, anchor="ls")
        x += font.getlength(run)


@cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
