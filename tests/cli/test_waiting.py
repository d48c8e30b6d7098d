"""The line on the terminal while a model loads and an answer is written."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dexar_fast.cli import waiting
from dexar_fast.cli.explain import SAMPLE_IMAGE, SAMPLE_PROMPT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(written: str) -> str:
    """What a terminal shows of one line in the end."""
    shown = ""
    for part in written.split("\r"):
        shown = part + shown[len(part) :]
    return shown.rstrip()


def test_it_counts_seconds_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(waiting, "EVERY", 0.01)
    with waiting.waiting("loading"):
        time.sleep(0.6)
    written = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "\rloading, 0 s" in written and "\rloading, 1 s" in written
    assert screen(written) == ""


def test_an_error_finds_an_empty_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(KeyboardInterrupt), waiting.waiting("loading"):
        raise KeyboardInterrupt
    assert screen(sys.stderr.getvalue()) == ""  # type: ignore[attr-defined]


def test_elsewhere_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with waiting.waiting("loading"):
        pass
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_the_program_says_what_it_waits_for(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    code = "from dexar_fast.cli.app import main; main()"
    bars = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    asked = [
        "explain",
        str(SAMPLE_IMAGE),
        SAMPLE_PROMPT,
        "--generate",
        "do_sample=false",
        "--out",
        str(tmp_path / "out"),
    ]
    command = [sys.executable, "-c", code, *asked]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=bars, check=True)
    os.close(theirs)
    written = os.read(ours, 100_000).decode()
    os.close(ours)
    assert written.startswith("\rloading torch and transformers, 0 s")
    assert "\rloading the model, 0 s" in written
    assert "\rwriting and explaining the answer, 0 s" in written
    assert screen(written) == "" and "\n" not in written
    assert b"loading" not in done.stdout
