"""A ledger of finished items: JSON lines, of which a killed job loses none and a later one goes on from."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from dexar_fast.errors import FileError, InputError, cause

VERSION = 1
SYNCED_EVERY = 1.0  # seconds: a disk takes some milliseconds each time
CONTENT = "data_content"  # the setting that tells other data of the same names; ledgers of old have none
_FORMAT, _ASKED, _KEY, _RECORD = "dexar_fast_ledger", "asked", "key", "record"


class Ledger(Mapping[str, Any]):
    """What a job has finished, by key, in the order in which it was finished. Close it, or use it in a `with` block.

    Its file holds what was asked, then a line for each item. It is locked while the ledger is open; the lock ends with
    the process, however that ends. A last line that was cut off is dropped. What is added survives a kill of the
    process at once, and a loss of power once a second has passed. Of several lines for an item the last counts.

    Attributes:
        asked: as plain JSON.

    Args:
        path: the file; made if it does not exist, in a folder that does.
        asked: plain JSON: all settings on which the records depend.
    Raises:
        InputError: the file holds records made with other settings, or with some that this job lacks; the message
            names them.
        FileError: another process has it open, it is no ledger, is damaged, or cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], asked: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._synced = 0.0
        self._file = _opened(self.path)
        try:
            _lock(self.path, self._file)
            self._resume(json.loads(_line(asked)))
        except BaseException:
            self.close()
            raise

    def _resume(self, asked: dict[str, Any]) -> None:
        before, self._records, self._end = _parsed(self.path, _content(self.path))
        if before is None or not self._records:  # nothing depends on what was asked before
            self._end = 0
            self._write(_line({_FORMAT: VERSION, _ASKED: asked}))
        else:
            compare(self.path, before, asked)
        self.asked = asked

    def add(self, finished: Mapping[str, Any], again: bool = False) -> None:
        """Writes the records of items that are finished: plain JSON by key, without NaN.

        Args:
            again: records of keys that are in the ledger already take the place of theirs.
        Raises:
            InputError: a key that is in the ledger already, or what is no JSON; nothing is written.
            FileError: the disk is full or gone; nothing of this call counts.
        """
        known = [] if again else [key for key in finished if key in self._records]
        if known:
            raise InputError(f"{known[0]!r} is finished already: {self.path} holds each item once")
        lines = {key: _line({_KEY: key, _RECORD: record}) for key, record in finished.items()}
        self._write(b"".join(lines.values()))
        self._records |= {key: json.loads(line)[_RECORD] for key, line in lines.items()}

    def _write(self, data: bytes) -> None:
        try:
            os.ftruncate(self._file, self._end)  # what an earlier write left of a line
            _write_all(self._file, data)
            self._sync()
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise FileError(f"cannot write {self.path}: {cause(error)}; free the disk and run again") from error
        self._end += len(data)

    def _sync(self) -> None:
        if time.monotonic() - self._synced >= SYNCED_EVERY:
            os.fsync(self._file)
            self._synced = time.monotonic()

    def __getitem__(self, key: str) -> Any:
        return self._records[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def close(self) -> None:
        """Frees the file for other processes."""
        if self._file >= 0:
            with suppress(OSError):
                os.fsync(self._file)
            os.close(self._file)
        self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was asked, and the records by key, of a ledger that another process may be writing.

    Raises:
        FileError: no such file, no ledger, or damaged.
    """
    asked, records, _ = _parsed(Path(path), _content(Path(path)))
    if asked is None:
        raise FileError(f"{path} is empty: nothing was asked yet")
    return asked, records


def begun(path: Path) -> bool:
    """Whether a ledger says what was asked: one that has just been made does not yet."""
    with path.open("rb") as file:
        return file.readline().endswith(b"\n")


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write {path}: {cause(error)}") from error


def _lock(path: Path, file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileError(f"{path} is being written by another process: let it end, or choose another place") from None
    except OSError as error:
        raise FileError(f"cannot lock {path}: {cause(error)}; choose another file system") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {path}: {cause(error)}") from error


def _parsed(path: Path, data: bytes) -> tuple[dict[str, Any] | None, dict[str, Any], int]:
    """What was asked (None: nothing yet), the records, and how many bytes hold them. Raises FileError."""
    end = data.rfind(b"\n") + 1
    header, *lines = data[:end].splitlines() or [b""]
    asked = _header(path, header) if header else None
    records: dict[str, Any] = {}
    for number, line in enumerate(lines, 2):
        key, record = _entry(path, number, line)
        records[key] = record
    return asked, records, end


def _header(path: Path, line: bytes) -> dict[str, Any]:
    with suppress(ValueError, TypeError, KeyError):
        document = json.loads(line)
        version, asked = document[_FORMAT], dict(document[_ASKED])
        if version == VERSION:
            return asked
        raise FileError(f"{path} is of format {version}, this version reads {VERSION}: upgrade dexar_fast")
    raise FileError(f"{path} is no ledger of dexar_fast: choose another place")


def _entry(path: Path, number: int, line: bytes) -> tuple[str, Any]:
    try:
        document = json.loads(line)
        return document[_KEY], document[_RECORD]
    except (ValueError, TypeError, KeyError) as error:
        raise FileError(f"{path} is damaged in line {number}: delete the line, and its item is made again") from error


def compare(path: Path, begun: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises InputError that names every setting that differs; `CONTENT` does where both hold it."""
    names = [name for name in {**begun, **asked} if begun.get(name) != asked.get(name)]
    if not (CONTENT in begun and CONTENT in asked):
        names = [name for name in names if name != CONTENT]
    if names:
        both = (f"{name} {json.dumps(begun.get(name))}, not {json.dumps(asked.get(name))}" for name in names)
        raise InputError(f"{path} was begun with {'; '.join(both)}: ask the same again, or choose another place")


def _line(document: Any) -> bytes:
    """Raises InputError for what is no JSON."""
    try:
        return json.dumps(document, allow_nan=False).encode() + b"\n"
    except (ValueError, TypeError) as error:
        raise InputError(f"a ledger holds plain JSON: {error}") from error


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
