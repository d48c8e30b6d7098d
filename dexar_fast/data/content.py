"""Which data these are, told by what their records say: not by the place, the name or the date of a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

DIGITS = 16
LOT = 1024  # rows of a table that are Python's at a time while their content is told


def of_records(records: Iterable[Any], more: str = "") -> str:
    """16 hexadecimal digits of records and of a text; pictures count by their paths. The same in every process."""
    found = hashlib.sha256(more.encode("utf-8", "surrogatepass"))
    for record in records:
        found.update(_text(record).encode() + b"\n")
    return found.hexdigest()[:DIGITS]


def of_file(path: Path) -> str:
    """64 hexadecimal digits of the bytes of a file; none of one that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # reading the items says what is wrong with it
        return ""


def of_files(paths: Sequence[Path], indices: Sequence[int]) -> str:
    """The same of whole files, one behind the other, whichever items are asked: for the `beside` of a DataSet."""
    return " ".join(map(of_file, paths))


def nothing(indices: Sequence[int]) -> str:
    """The `beside` of a DataSet whose records tell all: an empty text."""
    return ""


def holds_bytes(kind: Any) -> bool:
    """Whether a type of pyarrow has bytes in it, as columns of pictures do; paths and texts have none."""
    if hasattr(kind, "storage_type"):
        return holds_bytes(kind.storage_type)
    if hasattr(kind, "index_type"):  # a dictionary
        return holds_bytes(kind.value_type)
    inner = [kind.field(index).type for index in range(kind.num_fields)]
    return "binary" in str(kind) if not inner else any(map(holds_bytes, inner))


def _text(record: Any) -> str:
    try:
        return json.dumps(record, default=_plain, skipkeys=True)
    except (ValueError, RecursionError):  # a record may hold anything
        return type(record).__name__


def _plain(value: Any) -> Any:
    """What JSON has no word for; of objects with an address, such as functions, the kind alone."""
    if isinstance(value, Path | Exception):
        return str(value)
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return vars(value) if is_dataclass(value) else type(value).__name__
