"""What a run of the command line leaves behind: files in a folder, a table on the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dexar_fast.errors import DexarError, FileError

if TYPE_CHECKING:
    from dexar_fast.explanation import Explanation

FILES = ("report.html", "explanation.safetensors", "answer.png", "tokens.png")
BAR_WIDTH = 30


def check_writable(out: Path) -> None:
    """Makes the folder and a file in it, to fail before the work is done rather than after.

    Raises:
        FileError: the folder cannot be made or written.
    """
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        TemporaryDirectory(dir=out).cleanup()


def write(explanation: Explanation, out: Path, by: Literal["token", "word"]) -> list[Path]:
    """Saves the report of an explanation, its numbers and, where its geometry is known, pictures of its maps.

    The files are completed in a hidden folder inside `out` and then moved; `by` is that of `Explanation.to_html`.

    Returns:
        The paths of the files.

    Raises:
        FileError: `out` cannot be written.
    """
    with _writing(out), TemporaryDirectory(prefix=".dexar-fast-", dir=out) as name:
        written = _write(explanation, Path(name), by)
        for file in written:
            os.replace(file, out / file.name)
    return [out / file.name for file in written]


def _write(explanation: Explanation, folder: Path, by: Literal["token", "word"]) -> list[Path]:
    from dexar_fast.report import caption  # brings matplotlib

    report, arrays, answer, tokens = (folder / name for name in FILES)
    explanation.to_html(report, by=by)
    explanation.save(arrays)
    if not explanation.grids:
        return [report, arrays]
    caption.under(explanation.overlay(), explanation).save(answer)
    explanation.plot()[0].savefig(tokens)
    return [report, arrays, answer, tokens]


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except DexarError:
        raise
    except OSError as error:
        raise FileError(f"cannot write to {out} ({error}): choose another folder with --out") from error


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
