"""Files that are written whole or not at all, and what is found out once and kept in the user's cache."""

from __future__ import annotations

import itertools
import json
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from dexar_fast.errors import FileError, cause


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file or none: a temporary file beside it takes the place of `path` once complete.

    Raises:
        FileError: no path, the folder does not exist or cannot be written, or the disk is full.
    """
    target = path_of(path)
    if not os.fspath(path):  # Path takes it for the current folder
        raise FileError("the path is empty: pass the name of a file")
    if not os.path.isdir(target.parent):
        raise FileError(f"cannot write {target}: the folder {target.parent} does not exist; create it first")
    temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.write_bytes(data)
        os.replace(temporary, target)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write {target}: {cause(error)}; choose another path or free it") from error
    finally:
        with suppress(OSError):  # a read-only file system refuses to delete even what is not there
            temporary.unlink()


def path_of(path: Any) -> Path:
    """As a Path. Raises FileError if it is no path."""
    try:
        return Path(path)
    except TypeError:
        raise FileError(f"{path!r} is no path: pass the name of a file") from None


def user_cache(*parts: str) -> Path:
    """A place in the user's cache; nothing is made there."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "dexar_fast", *parts)


def recalled(path: Path) -> Any:
    """What JSON was kept there; None if nothing was, or it cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


def keep(path: Path, document: Any) -> bool:
    """Keeps JSON there for the next process; returns whether the user's cache can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(document).encode())
    except OSError:  # FileError among them
        return False
    return True


def used(path: Path) -> None:
    """Notes that what is kept there was used now."""
    with suppress(OSError):
        os.utime(path)


def tidy(folder: Path, most_files: int, most_bytes: int) -> None:
    """Deletes what was not used for longest, beyond what may be kept; another process may do so too."""
    kept = sorted(filter(None, map(_use, folder.iterdir())), reverse=True)
    total = itertools.accumulate(size for _, size, _ in kept)
    for number, (size, (_, _, file)) in enumerate(zip(total, kept, strict=True)):
        if number >= most_files or size > most_bytes:
            file.unlink(missing_ok=True)


def _use(file: Path) -> tuple[float, int, Path] | None:
    """When a file was used last, and its bytes; None where it is gone."""
    with suppress(OSError):
        state = file.stat()
        return state.st_mtime, state.st_size, file
    return None
