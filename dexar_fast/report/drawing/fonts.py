"""Which installed font draws a character. matplotlib is loaded for what the font that it brings cannot draw."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

MISSING = "\N{WHITE SQUARE}"
"""Stands for a character that no installed font can draw."""

_FIRST = "mpl-data/fonts/ttf/DejaVuSans.ttf"
_FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Malgun Gothic", "Apple SD Gothic Neo",
    "Noto Sans Devanagari", "Nirmala UI", "Noto Emoji", "Segoe UI Emoji", "Arial Unicode MS",
)  # fmt: skip
_UNASSIGNED = "\uffff"  # for ever: a font draws it as what it cannot draw
_PIXELS = 24


def drawable(text: str) -> str:
    """The text with `MISSING` for what no installed font can draw."""
    return "".join(character if font_of(character) else MISSING for character in text)


@cache
def font_of(character: str) -> str:
    """The file of the first font that has a glyph for a character; empty if none has."""
    if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn"):
        return ""
    return next((path for path in _files() if _image(path, character) != _image(path, _UNASSIGNED)), "")


@cache
def families() -> tuple[str, ...]:
    """The families of `_FONTS` that are installed; the first comes with matplotlib."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return tuple(family for family in _FONTS if family in installed)


def _files() -> Iterator[str]:
    yield _first()
    yield from _further()


@cache
def _first() -> str:
    found = find_spec("matplotlib")  # which imports nothing
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'matplotlib'")
    return str(Path(found.origin).parent / _FIRST)


@cache
def _further() -> tuple[str, ...]:
    from matplotlib.font_manager import FontProperties, findfont

    return tuple(findfont(FontProperties(family=[family])) for family in families()[1:])


def _image(path: str, character: str) -> tuple[tuple[int, int], bytes]:
    """A character as a font draws it, by itself and so without regard to its neighbours."""
    mask = _font(path).getmask(character)
    return mask.size, bytes(mask)


@cache
def _font(path: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, _PIXELS, layout_engine=ImageFont.Layout.BASIC)
