"""A folder of results: checked before the work, filled at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from dexar_fast.errors import DexarError, FileError, cause

Earlier = Callable[[Path], list[str]]
"""The names of an earlier result's files in a folder, and of what else has their names."""


def check(out: Path, earlier: Earlier, force: bool) -> None:
    """Makes the folder and a file in it, to fail before the work is done rather than after.

    Args:
        force: an earlier result in it may be replaced.
    Raises:
        FileError: the folder cannot be made or written, or holds an earlier result.
    """
    with _writing(out):
        found = earlier(out)
        if found and not force:
            raise FileError(
                f"{out} holds an earlier result ({', '.join(found)}): choose another folder with --out, or replace "
                "it with --force"
            )
        out.mkdir(parents=True, exist_ok=True)
        TemporaryDirectory(dir=out).cleanup()


def fill(out: Path, writers: dict[str, Callable[[Path], None]], earlier: Earlier) -> list[Path]:
    """Writes files by their names.

    They are completed in a hidden folder inside `out` and then moved, and what an earlier result has beside them is
    deleted.

    Returns:
        Their paths.
    Raises:
        FileError: one of them cannot be written.
    """
    with _writing(out), TemporaryDirectory(prefix=".dexar-fast-", dir=out) as hidden:
        for name, writer in writers.items():
            with _in_place_of(out / name):
                writer(Path(hidden, name))
        for name in writers:
            with _writing(out / name):
                os.replace(Path(hidden, name), out / name)
        for stale in {*earlier(out)} - {*writers}:
            with _writing(out / stale):
                os.unlink(out / stale)
    return [out / name for name in writers]


def listed(out: Path) -> list[str]:
    """What is in a folder; nothing where there is none."""
    return os.listdir(out) if out.is_dir() else []


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
