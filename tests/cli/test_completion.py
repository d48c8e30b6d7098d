"""Completion in the shell: what it offers, and that nothing is installed unless asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = "from dexar_fast.cli.app import main; main()"


def completed(line: str, home: Path) -> list[str]:
    """What bash would offer for the last word."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_DEXAR_FAST_COMPLETE": "complete_bash"}
    command = [sys.executable, "-c", RUN]
    return subprocess.check_output(command, text=True, env=os.environ | words | {"HOME": str(home)}).split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dexar-fast ", ["explain", "compare", "chat", "serve", "demo", "run", "merge", "eval", "profile", "doctor"]),
        ("dexar-fast doctor --j", ["--json"]),
        ("dexar-fast explain a.png what --map", ["--map-filter"]),
    ],
)
def test_commands_and_options_are_offered(line: str, offered: list[str], tmp_path: Path) -> None:
    assert completed(line, tmp_path) == offered
    assert os.listdir(tmp_path) == []


def test_help_and_the_script_install_nothing(tmp_path: Path) -> None:
    for option in ("--help", "--version", "--show-completion"):
        command = f"{sys.executable} -c '{RUN}' {option}; true"  # a shell that stays, for Typer to find
        shown = subprocess.check_output(["bash", "-c", command], text=True, env=os.environ | {"HOME": str(tmp_path)})
    assert "_DEXAR_FAST_COMPLETE=complete_bash" in shown
    assert list(tmp_path.rglob("*")) == []
