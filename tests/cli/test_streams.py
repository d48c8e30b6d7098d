"""A standard output that fails, and what the program leaves of the interpreter's settings."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import FakeExplainer, run

from dexar_fast import ModelError
from dexar_fast.cli.loading import uncollected

FULL = Path("/dev/full")
PROGRAM = [sys.executable, "-m", "dexar_fast"]


@pytest.mark.skipif(not FULL.exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"], ["--help"], ["--version"]])
def test_a_full_disk_behind_the_output_is_one_line(arguments: list[str]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run([*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    told = "dexar-fast: cannot write to the standard output (No space left on device)\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_a_closed_pipe_is_one_line() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, "--version"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (2, "dexar-fast: cannot write to the standard output (Broken pipe)\n")


def test_no_output_at_all() -> None:
    done = subprocess.run(f"{sys.executable} -m dexar_fast --version >&-", shell=True, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_garbage_is_collected_again_once_the_libraries_are_loaded(
    fake: type[FakeExplainer], image: str, tmp_path: Path
) -> None:
    assert run("explain", image, "What?", "--out", str(tmp_path)).exit_code == 0
    assert gc.isenabled()
    with pytest.raises(ModelError), uncollected():
        assert not gc.isenabled()
        raise ModelError
    assert gc.isenabled()
