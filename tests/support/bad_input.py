"""The table of bad input: what a row of it is, how it is checked, and how tests/BAD_INPUT.md shows it.

Each module `test_bad_*.py` holds the rows of one subject under `ROWS`.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import small_llava
import torch
from PIL import Image

from dexar_fast import Explainer, Explanation, errors
from dexar_fast.cli import app

PROMPT, ANSWER = "Describe the image.", "the cat is red"
TOKENIZER = small_llava.byte_level()
PROCESSOR = small_llava.processor(TOKENIZER)
MODEL = small_llava.model(TOKENIZER)
PICTURE = Image.new("RGB", (40, 30), "red")
PICTURE.paste((0, 255, 0), (0, 0, 20, 15))  # a quarter, so that a turn or a flip shows

WARNED = "warned"  # and explained
EXPLAINED = ("explained", WARNED)

Call = Callable[[], Explanation]
Around = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class Case:
    """One way to meet a row."""

    explain: Call
    like: Call | None = None  # for what is explained: this gives the same result
    program: list[str] | None = None  # arguments of the command; None: the program cannot meet it
    around: Around = contextlib.nullcontext  # the state of the machine
    out: Path | None = None  # where the program writes, if not into a new folder
    command: str = "explain"  # of the program


@dataclass(frozen=True)
class Row:
    """A row of the table: its outcome is `explained`, `warned` or the name of an error; what is said holds `words`."""

    outcome: str
    words: tuple[str, ...]  # of what is explained without a warning: how
    cases: Callable[[Path], list[Case]]


def table(rows: dict[str, Row]) -> str:
    """The rows in Markdown."""
    lines = [f"| {name} | {_outcome(row)} | {_plain(' … '.join(row.words))} |" for name, row in rows.items()]
    return "\n".join(["| input | outcome | how, or the message |", "|---|---|---|", *lines])


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in a cell."""
    return text.replace("<", "&lt;").replace("|", "\\|")


def _outcome(row: Row) -> str:
    return row.outcome if row.outcome in EXPLAINED else f"`{row.outcome}`"


def check(row: Row, folder: Path, model: Path) -> None:
    """Meets a row in every way, by the library and by the program, which loads the model of that folder."""
    for number, case in enumerate(row.cases(folder)):
        out = case.out or folder / f"out{number}"
        if row.outcome in EXPLAINED:
            _check_explained(row, case, out, model)
        else:
            _check_refused(row, case, out, model)


def _check_explained(row: Row, case: Case, out: Path, model: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are looked for in what is explained
        found = case.explain()
    if row.outcome == WARNED:
        said(row, " ".join(found.diagnostics["warnings"]))
    assert found.token_maps.isfinite().all() and len(found) >= 1
    if case.like is not None:
        same(found, case.like())
        assert found.unfiltered_token_maps.any()
    if case.program is not None:
        status, _, stderr = program(*case.program, "--out", str(out), *_which(case, model))
        assert status == 0
        if row.outcome == WARNED:
            one_line(stderr)
            said(row, stderr)
        else:
            assert stderr == ""
        same(Explanation.load(out / "explanation.safetensors"), found)


def _check_refused(row: Row, case: Case, out: Path, model: Path) -> None:
    with case.around():
        before = _content(out)
        with pytest.raises(errors.DexarError) as caught:
            case.explain()
        assert type(caught.value).__name__ == row.outcome
        said(row, str(caught.value))
        if case.program is not None:
            arguments = [*case.program, "--out", str(out), *_which(case, model)]
            status, stdout, stderr = program(*arguments, command=case.command)
            assert (status, stdout) == (2, "")
            one_line(stderr)
            said(row, stderr)
        assert _content(out) == before


def _content(folder: Path) -> dict[str, bytes]:
    """Every file in a folder; none where there is none."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()} if folder.is_dir() else {}


def _which(case: Case, model: Path) -> list[str]:
    own = case.command != "explain" or "--model" in (case.program or [])
    return [] if own else ["--model", str(model), "--device", "cpu"]


def said(row: Row, message: str) -> None:
    """The words, in their order."""
    at = 0
    for word in row.words:
        at = message.find(word, at)
        assert at >= 0, (word, message)


def one_line(stderr: str) -> None:
    assert stderr.startswith("dexar-fast: ") and stderr.endswith("\n") and stderr.count("\n") == 1, stderr


def same(found: Explanation, expected: Explanation) -> None:
    """The same tokens, the same images, and maps that differ by rounding."""
    assert found.token_ids.tolist() == expected.token_ids.tolist()
    assert found.tokens == expected.tokens
    assert [image.tobytes() for image in found.images] == [image.tobytes() for image in expected.images]
    for name in ("visual_scores", "text_scores", "token_maps", "unfiltered_token_maps", "sequence_map"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5)


def program(*arguments: str, command: str = "explain") -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command of `dexar-fast` in this process."""
    streams = io.StringIO(), io.StringIO()
    with _as_it_was(), contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        sys.argv = ["dexar-fast", command, *arguments]
        try:
            app.main()
            status: Any = 0
        except SystemExit as ended:
            status = ended.code
    return status, *(stream.getvalue() for stream in streams)


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """What the program sets for its process is set back."""
    argv, handler, environment = sys.argv, signal.getsignal(signal.SIGTERM), dict(os.environ)
    try:
        yield
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]


def explain(image: Any = PICTURE, prompt: str = PROMPT, response: str | None = ANSWER, **options: Any) -> Explanation:
    """With the small model."""
    return Explainer(MODEL, PROCESSOR).explain(image, prompt, response, **options)


def save_model(folder: Path, model: Any = MODEL, processor: Any = PROCESSOR) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
