"""What `dexar-fast explain` leaves behind: files in a folder, a table on the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dexar_fast.cli.output import folder

if TYPE_CHECKING:
    from dexar_fast.explanation import Explanation

ARRAYS = "explanation.safetensors"
FILES = ("report.html", ARRAYS, "answer.png", "tokens.png")
BAR_WIDTH = 30
FAST = 1  # level of PNG compression: a quarter of the time for a sixth more bytes
NO_PICTURES = "There are no pictures: where this model's visual tokens lie in the image is not known."


def results_in(out: Path) -> list[str]:
    """The names of an earlier result's files, and of what else has their names."""
    further = re.compile(r"answer-\d+\.png")
    listed = folder.listed(out)
    return [name for name in FILES if name in listed] + sorted(filter(further.fullmatch, listed))


def write(explanation: Explanation, out: Path, by: Literal["token", "word"]) -> list[Path]:
    """Saves the report of an explanation, its numbers and, where its geometry is known, pictures of its maps.

    The map of the whole answer over the second image is answer-2.png, and so on. `by` is that of `Explanation.to_html`.
    Returns and raises as `folder.fill`.
    """
    report, arrays, answer, tokens = FILES
    writers: dict[str, Callable[[Path], None]] = {
        report: lambda path: explanation.to_html(path, by=by),
        arrays: explanation.save,
    }
    if explanation.grids:
        for image in sorted({image for grid in explanation.grids for image in grid.images}):
            writers[f"answer-{image + 1}.png" if image else answer] = partial(_overlay, explanation, image)
        writers[tokens] = partial(_sheet, explanation)
    return folder.fill(out, writers, results_in)


def _overlay(explanation: Explanation, image: int, path: Path) -> None:
    from dexar_fast.report.drawing import caption

    caption.under(explanation.overlay(image=image), explanation).save(path, compress_level=FAST)


def _sheet(explanation: Explanation, path: Path) -> None:
    from dexar_fast.report.drawing import sheet

    sheet.draw_sheet(explanation).save(path, compress_level=FAST)


def show(explanation: Explanation, console: Console) -> None:
    """Prints each token with its weight, or the answer where none are weighed; then what the filters left over."""
    if explanation.weighted:
        console.print(_weights(explanation))
    else:
        console.print(Text(explanation.text.strip()))
    summarize(explanation, console)


def _weights(explanation: Explanation) -> Table:
    weights = explanation.token_weights.tolist()
    longest = max(weights, default=0)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("token")
    table.add_column("weight", justify="right")
    table.add_column("")
    for token, weight in zip(explanation.tokens, weights, strict=True):
        bar = "█" * round(BAR_WIDTH * weight / longest) if longest else ""
        table.add_row(Text(_printable(token)), f"{weight:.3g}", Text(bar))
    return table


def summarize(explanation: Explanation, console: Console) -> None:
    """Prints in a sentence or two what the filters left over."""
    from dexar_fast.report.plain_words import diagnose  # not needed before something is explained

    if summary := " ".join(map(str, diagnose(explanation))):
        console.print(Text(summary))
    if not explanation.grids:
        console.print(NO_PICTURES)


def _printable(token: str) -> str:
    return token if token.isprintable() else repr(token)[1:-1]
