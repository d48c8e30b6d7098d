"""The table of bad input: where results are written."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import bad_input
import pytest
from bad_input import ANSWER, PICTURE, PROMPT, Around, Case, Row

from dexar_fast import Explanation

pytestmark = pytest.mark.alone

NOBODY = 65534
KILOBYTES = 32  # of a disk that is full


def writing(
    picture: Path, save_to: Path, out: Path, around: Around = contextlib.nullcontext, *options: str
) -> list[Case]:
    """Saving an explanation, and running the program, which writes to `out`."""
    PICTURE.save(picture)
    program = [str(picture), PROMPT, "--response", ANSWER, *options]
    return [Case(partial(saved, bad_input.explain(), save_to), None, program, around, out)]


def saved(found: Explanation, path: Path) -> Explanation:
    found.save(path)
    return Explanation.load(path)


def full_disk(folder: Path) -> list[Case]:
    disk = folder / "disk"
    disk.mkdir()
    return writing(folder / "a.png", disk / "a.safetensors", disk, partial(mounted, disk))


@contextlib.contextmanager
def mounted(disk: Path) -> Iterator[None]:
    """A small disk of its own where the system lets us mount one; else no file may grow."""
    if shutil.which("mount") is None or not ran("mount", "-t", "tmpfs", "-o", f"size={KILOBYTES}k", "tmpfs", str(disk)):
        with small_files():
            yield
        return
    try:
        (disk / "much.bin").write_bytes(bytes(KILOBYTES * 1024))
        yield
    finally:
        assert ran("umount", str(disk))


def ran(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def read_only(folder: Path) -> list[Case]:
    locked = Path(tempfile.mkdtemp())  # not within `folder`, where only its owner gets to
    return writing(locked / "a.png", locked / "a.safetensors", locked, partial(without_rights, locked))


@contextlib.contextmanager
def without_rights(locked: Path) -> Iterator[None]:
    """As a user whom the folder refuses; the superuser it would not."""
    user = os.geteuid()
    locked.chmod(0o555)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        locked.chmod(0o755)
        shutil.rmtree(locked)


def existing(folder: Path) -> list[Case]:
    """What an earlier run wrote."""
    out = folder / "out"
    out.mkdir()
    for name in ("report.html", "explanation.safetensors", "answer.png", "tokens.png", "a.safetensors"):
        (out / name).write_text("earlier")
    return writing(folder / "a.png", out / "a.safetensors", out, contextlib.nullcontext, "--force")


ROWS = {
    "disk full": Row("FileError", ("cannot write", "choose another"), full_disk),
    "folder that may not be written": Row(
        "FileError", ("cannot write", "Permission denied", "choose another"), read_only
    ),
    "file in the place of the folder": Row(
        "FileError", ("cannot write", "a.png"), lambda f: writing(f / "a.png", f / "a.png" / "b", f / "a.png")
    ),
    "existing output": Row(
        "explained", ("each file is replaced once the new one is complete; by the program with --force",), existing
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_file(row: str, tmp_path: Path, model_folder: Path) -> None:
    bad_input.check(ROWS[row], tmp_path, model_folder)


def test_files_that_may_not_grow_stand_for_a_full_disk(tmp_path: Path) -> None:
    """Where no disk can be mounted."""
    found = bad_input.explain()
    with small_files(), pytest.raises(bad_input.errors.FileError, match="cannot write"):
        found.save(tmp_path / "a.safetensors")
    assert os.listdir(tmp_path) == []


# Interrupted while writing

HALFWAY = """
import os, signal, sys
from pathlib import Path
whole, stop = Path.write_bytes, signal.Signals[sys.argv.pop()]
def half(path, data):
    whole(path, data[: len(data) // 2])
    os.kill(os.getpid(), stop)
Path.write_bytes = half
"""
PROGRAM = HALFWAY + "from dexar_fast.cli.app import main; main()"
LIBRARY = HALFWAY + "from dexar_fast import Explanation; Explanation.load(sys.argv[1]).save(sys.argv[2])"


def interrupted(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("stop", "status", "stderr"),
    [("SIGINT", 128 + signal.SIGINT, "dexar-fast: interrupted\n"), ("SIGTERM", 128 + signal.SIGTERM, "")],
)
def test_the_program_interrupted_while_writing_leaves_what_was_there(
    stop: str, status: int, stderr: str, tmp_path: Path, model_folder: Path
) -> None:
    PICTURE.save(tmp_path / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "explanation.safetensors").write_text("earlier")
    options = ["--response", ANSWER, "--model", str(model_folder), "--device", "cpu", "--out", str(out), "--force"]
    done = interrupted(PROGRAM, "explain", str(tmp_path / "a.png"), PROMPT, *options, stop)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", stderr)
    assert os.listdir(out) == ["explanation.safetensors"]
    assert (out / "explanation.safetensors").read_text() == "earlier"


def test_saving_interrupted_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    bad_input.explain().save(tmp_path / "a")
    (tmp_path / "b").write_text("earlier")
    done = interrupted(LIBRARY, str(tmp_path / "a"), str(tmp_path / "b"), "SIGINT")
    assert "KeyboardInterrupt" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "b").read_text() == "earlier"


def test_ctrl_c_while_the_model_runs_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    PICTURE.save(tmp_path / "a.png")
    monkeypatch.setattr("dexar_fast.Explainer.from_pretrained", stopped)
    arguments = [str(tmp_path / "a.png"), PROMPT, "--out", str(tmp_path / "out")]
    assert bad_input.program(*arguments) == (130, "", "dexar-fast: interrupted\n")
    assert os.listdir(tmp_path / "out") == []
