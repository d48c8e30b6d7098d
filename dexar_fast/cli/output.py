"""What a run of the command line leaves behind: files in a folder, a table on the terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dexar_fast.errors import DexarError, FileError, cause

if TYPE_CHECKING:
    from dexar_fast.explanation import Explanation

ARRAYS = "explanation.safetensors"
FILES = ("report.html", ARRAYS, "answer.png", "tokens.png")
BAR_WIDTH = 30
FAST = 1  # level of PNG compression: a quarter of the time for a sixth more bytes


def check_writable(out: Path, force: bool) -> None:
    """Makes the folder and a file in it, to fail before the work is done rather than after.

    Args:
        force: an earlier result in it may be replaced.
    Raises:
        FileError: the folder cannot be made or written, or holds an earlier result.
    """
    with _writing(out):
        earlier = results_in(out)
        if earlier and not force:
            raise FileError(
                f"{out} holds an earlier result ({', '.join(earlier)}): choose another folder with --out, or replace "
                "it with --force"
            )
        out.mkdir(parents=True, exist_ok=True)
        TemporaryDirectory(dir=out).cleanup()


def results_in(out: Path) -> list[str]:
    """The names of an earlier result's files, and of what else has their names."""
    further = re.compile(r"answer-\d+\.png")
    listed = os.listdir(out) if out.is_dir() else []
    return [name for name in FILES if name in listed] + sorted(filter(further.fullmatch, listed))


def write(explanation: Explanation, out: Path, by: Literal["token", "word"]) -> list[Path]:
    """Saves the report of an explanation, its numbers and, where its geometry is known, pictures of its maps.

    The map of the whole answer over the second image is answer-2.png, and so on.

    The files are completed in a hidden folder inside `out` and then moved, and what an earlier result has beside them
    is deleted; `by` is that of `Explanation.to_html`.

    Returns:
        The paths of the files.

    Raises:
        FileError: one of them cannot be written.
    """
    with _writing(out), TemporaryDirectory(prefix=".dexar-fast-", dir=out) as name:
        written = _write(explanation, Path(name), out, by)
        for file in written:
            with _writing(out / file.name):
                os.replace(file, out / file.name)
        for stale in {*results_in(out)} - {file.name for file in written}:
            with _writing(out / stale):
                os.unlink(out / stale)
    return [out / file.name for file in written]


def _write(explanation: Explanation, folder: Path, out: Path, by: Literal["token", "word"]) -> list[Path]:
    report, arrays, answer, tokens = FILES
    writers: dict[str, Callable[[Path], None]] = {
        report: lambda path: explanation.to_html(path, by=by),
        arrays: explanation.save,
    }
    if explanation.grids:
        for image in sorted({image for grid in explanation.grids for image in grid.images}):
            writers[f"answer-{image + 1}.png" if image else answer] = partial(_overlay, explanation, image)
        writers[tokens] = partial(_sheet, explanation)
    for name, writer in writers.items():
        with _in_place_of(out / name):
            writer(folder / name)
    return [folder / name for name in writers]


def _overlay(explanation: Explanation, image: int, path: Path) -> None:
    from dexar_fast.report.drawing import caption

    caption.under(explanation.overlay(image=image), explanation).save(path, compress_level=FAST)


def _sheet(explanation: Explanation, path: Path) -> None:
    from dexar_fast.report.drawing import sheet

    sheet.draw_sheet(explanation).save(path, compress_level=FAST)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except DexarError:
        raise
    except OSError as error:
        raise FileError(f"cannot write to {path} ({cause(error)}): choose another folder with --out") from error


@contextmanager
def _in_place_of(path: Path) -> Iterator[None]:
    """Names the file that the user knows where the one in the hidden folder cannot be written."""
    with _writing(path):
        try:
            yield
        except FileError as error:
            raise (error.__cause__ if isinstance(error.__cause__, OSError) else error) from None


def show(explanation: Explanation, console: Console) -> None:
    """Prints each token with its weight, and in a sentence or two what the filters left over."""
    weights = explanation.token_weights.tolist()
    longest = max(weights, default=0)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("token")
    table.add_column("weight", justify="right")
    table.add_column("")
    for token, weight in zip(explanation.tokens, weights, strict=True):
        bar = "█" * round(BAR_WIDTH * weight / longest) if longest else ""
        table.add_row(Text(_printable(token)), f"{weight:.3g}", Text(bar))
    console.print(table)
    summarize(explanation, console)


def summarize(explanation: Explanation, console: Console) -> None:
    """Prints in a sentence or two what the filters left over."""
    from dexar_fast.report.plain_words import diagnose  # not needed before something is explained

    console.print(Text(" ".join(map(str, diagnose(explanation)))))
    if not explanation.grids:
        console.print("There are no pictures: where this model's visual tokens lie in the image is not known.")


def _printable(token: str) -> str:
    return token if token.isprintable() else repr(token)[1:-1]
