"""Which installed font draws a character."""

from __future__ import annotations

import unicodedata
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

MISSING = "\N{WHITE SQUARE}"
"""Stands for a character that no installed font can draw."""

_FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Malgun Gothic", "Apple SD Gothic Neo",
    "Noto Sans Devanagari", "Nirmala UI", "Noto Emoji", "Segoe UI Emoji", "Arial Unicode MS",
)  # fmt: skip


def drawable(text: str) -> str:
    """The text with `MISSING` for what no installed font can draw."""
    return "".join(character if font_of(character) else MISSING for character in text)


@cache
def font_of(character: str) -> str:
    """The file of the first font that has a glyph for a character; empty if none has."""
    if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn"):
        return ""
    return next((path for path in _font_files() if get_font(path).get_char_index(ord(character))), "")


@cache
def families() -> tuple[str, ...]:
    """The families of `_FONTS` that are installed; the first comes with matplotlib."""
    installed = {font.name for font in fontManager.ttflist}
    return tuple(family for family in _FONTS if family in installed)


@cache
def _font_files() -> tuple[str, ...]:
    return tuple(findfont(FontProperties(family=[family])) for family in families())
