"""A page of titled pictures, drawn with matplotlib but without pyplot.

A figure made by pyplot lives until it is closed by hand, may ask for a window system and is not thread-safe.
This one is an object like any other; a notebook shows it because it knows how to draw itself.
"""

import io
import math
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.report.overlay import draw_overlay

_COLUMNS = 6
_PANEL_INCHES = 2.1
_TITLE_INCHES = 0.5
_PANEL_PIXELS = 448
_LONGEST_TITLE = 22
MISSING = "\N{WHITE SQUARE}"
"""Stands for a character that no installed font can draw."""

# Byte-level and SentencePiece vocabularies write a space and a newline this way.
_VISIBLE = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\u21b5", "\n": "\u21b5", "\t": "\u21e5"})
_FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Malgun Gothic", "Apple SD Gothic Neo",
    "Noto Sans Devanagari", "Nirmala UI", "Noto Emoji", "Segoe UI Emoji", "Arial Unicode MS",
)  # fmt: skip


class Page(Figure):
    """A figure that notebooks show without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def draw_figure(
    image: Image.Image, heats: Sequence[NDArray[np.float32]], titles: Sequence[str], note: str
) -> tuple[Figure, NDArray[np.object_]]:
    """The image, then an overlay for each heat under its title, row by row, and a note above all.

    Args:
        image: RGB, width x height.
        heats: each [height, width] in [0, 1].
        titles: one for each heat.
        note: empty for none.

    Returns:
        The figure and its axes, [1 + heats].
    """
    pictures = [image, *(draw_overlay(image, heat) for heat in heats)]
    page, axes = _empty_page(len(pictures), image.height / image.width)
    for ax, picture, text in zip(axes, pictures, ["image", *titles], strict=True):
        _draw_panel(ax, picture, text)
    if note:
        page.suptitle(note, fontsize=9)
    return page, axes


def title(token: str, weight: float) -> str:
    """The heading of a token's panel."""
    return f"{printable(token)}\nweight {weight:.3g}"


def shrink(image: Image.Image) -> Image.Image:
    """The image at no more pixels than a panel shows."""
    small = image.copy()
    small.thumbnail((_PANEL_PIXELS, _PANEL_PIXELS))
    return small


def _empty_page(panels: int, aspect: float) -> tuple[Page, NDArray[np.object_]]:
    """A page with room for pictures of height / width = aspect, and its axes [panels]."""
    columns = min(_COLUMNS, panels)
    rows = math.ceil(panels / columns)
    height = _PANEL_INCHES * min(max(aspect, 0.4), 2.5) + _TITLE_INCHES
    page = Page(figsize=(_PANEL_INCHES * columns, height * rows), dpi=120, layout="constrained")
    return page, np.array([page.add_subplot(rows, columns, 1 + i) for i in range(panels)], dtype=object)


def _draw_panel(ax: Axes, picture: Image.Image, text: str) -> None:
    ax.imshow(np.asarray(picture))
    ax.set_title(text, fontsize=9, family=list(_fonts()), parse_math=False, usetex=False)
    ax.set_axis_off()


def printable(token: str) -> str:
    """A token as a title shows it: short, on one line, in glyphs that an installed font has."""
    shown = token.translate(_VISIBLE).strip() or repr(token.translate(_VISIBLE))
    if len(shown) > _LONGEST_TITLE:
        shown = shown[: _LONGEST_TITLE - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return "".join(character if font_of(character) else MISSING for character in shown)


@cache
def font_of(character: str) -> str:
    """The file of the first font that has a glyph for a character; empty if none has."""
    if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn"):
        return ""
    return next((path for path in _font_files() if get_font(path).get_char_index(ord(character))), "")


@cache
def _fonts() -> tuple[str, ...]:
    """The families of `_FONTS` that are installed; the first comes with matplotlib."""
    installed = {font.name for font in fontManager.ttflist}
    return tuple(family for family in _FONTS if family in installed)


@cache
def _font_files() -> tuple[str, ...]:
    return tuple(findfont(FontProperties(family=[family])) for family in _fonts())
