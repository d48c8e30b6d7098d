"""The files of a data set: found, named if they are missing, and read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dexar_fast.errors import InputError, reason


def present(data: str, *paths: Path) -> None:
    """Raises InputError with the name of every path that is missing."""
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise InputError(f"{data}: missing {' and '.join(missing)}")


def first(data: str, paths: Iterable[Path]) -> Path:
    """The first path that is there.

    Raises:
        InputError: none is; the message names them all.
    """
    tried = list(paths)
    for path in tried:
        if path.exists():
            return path
    raise InputError(f"{data}: missing {' or '.join(map(str, tried))}")


def text(path: Path) -> str:
    """The text of a file in UTF-8. Raises InputError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def lines(path: Path) -> list[str]:
    """The lines of a file that hold something, without what surrounds them. Raises InputError."""
    return [line.strip() for line in text(path).splitlines() if line.strip()]


def json_of(path: Path, kind: type) -> Any:
    """The JSON document of a file, which must be a dict or a list, as `kind` says. Raises InputError."""
    found = _parsed(text(path), str(path))
    if isinstance(found, InputError):
        raise found
    if not isinstance(found, kind):
        raise InputError(f"{path} holds a {type(found).__name__} where a {kind.__name__} is due")
    return found


def json_lines(path: Path) -> list[Any]:
    """The documents of a file with one a line; InputError in place of a line that is none. Raises InputError.

    A file that holds one JSON list gives the entries of that list.
    """
    content = text(path)
    if content.lstrip().startswith("["):
        return json_of(path, list)
    rows = enumerate(content.split("\n"), start=1)
    return [_parsed(line, f"line {number} of {path}") for number, line in rows if line.strip()]


def _parsed(content: str, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        return InputError(f"{where} is not JSON: {reason(error)}")


def table(path: Path, columns: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its head, which must hold `columns`. Raises InputError."""
    try:
        reader = csv.DictReader(text(path).splitlines(keepends=True), strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise InputError(f"{path} is not CSV: {error}") from error
    absent = [column for column in columns if column not in (reader.fieldnames or ())]
    if absent:
        raise InputError(f"{path} lacks the column {absent[0]!r}: it has {', '.join(reader.fieldnames or ['none'])}")
    return rows
