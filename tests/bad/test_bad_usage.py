"""The table of bad input: the command line itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bad_input
import pytest
from bad_input import PICTURE, PROMPT

USAGE = {
    "missing argument": (["a.png"], "Missing argument", "prompt"),
    "argument too many": (["a.png", PROMPT, "more"], "unexpected extra argument"),
    "unknown option": (["a.png", PROMPT, "--frob"], "No such option", "--frob"),
    "option without its value": (["a.png", PROMPT, "--out"], "--out", "requires an argument"),
    "folder without a name": (["a.png", PROMPT, "--out", ""], "--out", "empty"),
    "list of layers that is none": (["a.png", PROMPT, "--layers", "0;1"], "--layers", "'0;1' is no list of layers"),
    "unknown head score": (["a.png", PROMPT, "--head-score", "topk"], "'topk' is none of max, mean, topk:K"),
    "unknown map filter": (["a.png", PROMPT, "--map-filter", "rank:x"], "'rank:x' is not rank:K"),
    "number that is none": (["a.png", PROMPT, "--chunk-size", "x"], "--chunk-size", "integer"),
}


@pytest.mark.parametrize("row", USAGE)
def test_usage(row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, *words = USAGE[row]
    status, stdout, stderr = bad_input.program(*arguments)
    assert (status, stdout) == (2, "")
    bad_input.one_line(stderr)
    assert all(word in stderr for word in words), stderr
    assert "--help" in stderr
    assert os.listdir(tmp_path) == []


def test_an_unknown_command_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from dexar_fast.cli.app import main; main()", "frobnicate"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    bad_input.one_line(done.stderr)
    assert "frobnicate" in done.stderr


def test_debug_gives_the_traceback(tmp_path: Path) -> None:
    status, stdout, stderr = bad_input.program(str(tmp_path / "none.png"), PROMPT, "--debug")
    assert (status, stdout) == (2, "")
    assert stderr.startswith("Traceback") and "in _open" in stderr and "ImageError" in stderr.splitlines()[-1]


def test_a_file_name_of_several_lines_still_gives_one(tmp_path: Path) -> None:
    status, _, stderr = bad_input.program(str(tmp_path / "a\nb\r\u2028c.png"), PROMPT)
    assert status == 2
    bad_input.one_line(stderr)


def test_a_prompt_too_long_to_read_gives_no_line_of_a_library(tmp_path: Path, model_folder: Path) -> None:
    """transformers would log that the text is longer than the tokenizer's limit."""
    PICTURE.save(tmp_path / "a.png")
    command = [sys.executable, "-c", "from dexar_fast.cli.app import main; main()", "explain", str(tmp_path / "a.png")]
    command += ["cat " * 10_000, "--model", str(model_folder), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    bad_input.one_line(done.stderr)
