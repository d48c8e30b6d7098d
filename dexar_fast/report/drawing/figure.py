"""A page of titled pictures, drawn with matplotlib but without pyplot.

A figure made by pyplot lives until it is closed by hand, may ask for a window system and is not thread-safe.
This one is an object like any other; a notebook shows it because it knows how to draw itself.
"""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.report import scales
from dexar_fast.report.drawing import caption, titles
from dexar_fast.report.drawing.colours import COLOUR_MAP
from dexar_fast.report.drawing.fonts import families
from dexar_fast.report.drawing.overlay import LEVELS, draw_overlay
from dexar_fast.results.schema import Result

_COLUMNS = 6
_PANEL_INCHES = 2.1
_TITLE_INCHES = 0.5
_LEAST_INCHES = 6.3  # a narrower page has no room for the question, the answer and the legend
PANEL_PIXELS = 448  # no more of a picture than a panel shows
_DOTS = 120  # an inch
_LETTERS = 9  # in points
_LINE_INCHES = 0.165
_BAR_INCHES = 0.6


class Page(Figure):
    """A figure that notebooks show without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


class Plot(NamedTuple):
    """A figure and the axes of its pictures; a notebook cell that ends with this pair shows the figure."""

    figure: Page
    axes: NDArray[np.object_]

    def _repr_png_(self) -> bytes:
        return self.figure._repr_png_()


def draw_figure(
    explanation: Result,
    image: Image.Image,
    heats: Sequence[NDArray[np.float32]],
    tokens: Sequence[int],
    by_weight: bool,
    *,
    all_of_it: bool,
) -> Plot:
    """The question and the answer, the image, an overlay for each heat under its title, a colour bar with its meaning.

    Args:
        image: RGB, width x height.
        heats: each [height, width] in [0, 1]: the whole answer, then the tokens.
        tokens: which they are.
        by_weight: whether the heats of tokens are scaled so.
        all_of_it: whether these are all tokens that were asked for; else the figure says that some were left out.

    Returns:
        The figure and the axes of the pictures, [1 + heats].
    """
    pictures = [image, *(draw_overlay(image, heat) for heat in heats)]
    page, axes = _empty_page(len(pictures), image.height / image.width)
    for ax, picture, text in zip(axes, pictures, titles.of(explanation, tokens, by_weight), strict=True):
        _draw_panel(ax, picture, text)
    _write(page, explanation, "" if all_of_it else titles.left_out(explanation, tokens))
    _draw_bar(page, list(axes), scales.legend(explanation, by_weight))
    return Plot(page, axes)


def _empty_page(panels: int, aspect: float) -> tuple[Page, NDArray[np.object_]]:
    """A page with room for pictures of height / width = aspect, and its axes [panels]."""
    columns = min(_COLUMNS, panels)
    rows = math.ceil(panels / columns)
    height = _PANEL_INCHES * min(max(aspect, 0.4), 2.5) + _TITLE_INCHES
    size = (max(_PANEL_INCHES * columns, _LEAST_INCHES), height * rows + _BAR_INCHES)
    page = Page(figsize=size, dpi=_DOTS, layout="constrained")
    return page, np.array([page.add_subplot(rows, columns, 1 + i) for i in range(panels)], dtype=object)


def _draw_panel(ax: Axes, picture: Image.Image, text: str) -> None:
    ax.imshow(np.asarray(picture))
    ax.set_title(text, fontsize=_LETTERS, family=list(families()), parse_math=False, usetex=False)
    ax.set_axis_off()


def _write(page: Page, explanation: Result, note: str) -> None:
    """Writes the question, the answer and the note at the top, and makes the page as much higher."""
    width, height = page.get_size_inches()
    lines = caption.lines(explanation, round(_LETTERS / 72 * _DOTS), (width - 0.6) * _DOTS)
    lines += [note] if note else []
    page.set_size_inches(width, height + _LINE_INCHES * len(lines))
    text = page.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=_LETTERS, family=list(families()))
    text.set_parse_math(False)


def _draw_bar(page: Page, axes: list[Axes], legend: str) -> None:
    colours = ScalarMappable(cmap=COLOUR_MAP)
    colours.set_clim(0, 1)
    bar = page.colorbar(colours, ax=axes, location="bottom", shrink=0.6, aspect=60, pad=0.02)
    bar.set_ticks([level / LEVELS for level in range(LEVELS + 1)])
    bar.ax.tick_params(labelsize=_LETTERS - 1)
    bar.set_label(legend, fontsize=_LETTERS)
