"""A file that keeps probabilities as they come: JSON, one line a picture, which is only ever added to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image

from dexar_fast.errors import FileError, cause
from dexar_fast.files import path_of

HEADER = b'{"dexar_fast": "probabilities", "format_version": 1}\n'


class Record:
    """The probabilities by key. A line that a kill cut short is skipped, as if it had not been asked for.

    Raises:
        FileError: the file cannot be read or written, or holds something else.
    """

    def __init__(self, path: Any) -> None:
        self._path = path_of(path)
        self._lock = Lock()
        data = _bytes(self._path)
        if HEADER.startswith(data):  # nothing, or less than the first line
            self._append(HEADER[len(data) :])
        elif not data.startswith(HEADER):
            raise FileError(f"{self._path} is no record of probabilities: choose another path")
        elif not data.endswith(b"\n"):
            self._append(b"\n")
        self._known = dict(filter(None, map(_entry, data[len(HEADER) :].split(b"\n"))))

    def get(self, key: str) -> list[float] | None:
        return self._known.get(key)

    def add(self, key: str, probabilities: list[float]) -> None:
        """Threads may add at once. Raises FileError."""
        line = json.dumps({"key": key, "probabilities": probabilities})
        with self._lock:
            self._append(line.encode() + b"\n")
            self._known[key] = probabilities

    def _append(self, data: bytes) -> None:
        try:
            with open(self._path, "ab", buffering=0) as file:  # each line in one write
                file.write(data)
        except (OSError, ValueError) as error:
            raise FileError(f"cannot write {self._path}: {cause(error)}; choose another path or free it") from error


def key_of(picture: Image.Image, asked: Sequence[str]) -> str:
    """A digest of a picture as it is shown, and of what is asked about it."""
    words = json.dumps([picture.mode, picture.size, *asked])
    return hashlib.sha256(words.encode() + b"\0" + picture.tobytes()).hexdigest()


def _bytes(path: Path) -> bytes:
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileError(f"{path} is not a file: give the record another path")
    try:
        return path.read_bytes() if path.exists() else b""
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {path}: {cause(error)}") from error


def _entry(line: bytes) -> tuple[str, list[float]] | None:
    """A key and its probabilities; None for a line that is not whole."""
    try:
        found = json.loads(line)
        return str(found["key"]), [float(value) for value in found["probabilities"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
