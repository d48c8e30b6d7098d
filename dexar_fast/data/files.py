"""The files of a data set: found, named if they are missing, and read."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from dexar_fast.errors import InputError, reason

LEDGER = b'{"dexar_fast_ledger"'  # what the ledger of an evaluation begins with


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
    """The documents of a file with one a line; InputError in place of a line that is none.

    A file that holds one JSON list gives the entries of that list. Raises InputError, also where no line is JSON.
    """
    content = text(path)
    if content.lstrip().startswith("["):
        return json_of(path, list)
    rows = enumerate(content.split("\n"), start=1)
    found = [_parsed(line, f"line {number} of {path}") for number, line in rows if line.strip()]
    if found and all(isinstance(one, InputError) for one in found):
        raise found[0]
    return found


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


def pictures_below(root: Path) -> list[Path]:
    """Every file with the ending of a picture, sorted; links are followed, and one that leads nowhere is among them.

    Passed over: names that begin with a dot, and the pictures that `run` and `eval` wrote.
    """
    return sorted(filter(named_as_picture, _files(root)))


def named_as_picture(path: Path) -> bool:
    """Whether a path has the ending of a kind of picture that Pillow opens."""
    return Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN


def _files(root: Path) -> Iterator[Path]:
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(folder))
        inside = [Path(folder, name) for name in folders]
        folders[:] = [path.name for path in inside if _is_shown(path) and os.path.realpath(path) not in seen]
        yield from (path for path in (Path(folder, name) for name in names) if _is_shown(path) and _is_picture(path))


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".") and not _is_ours(path)


def _is_picture(path: Path) -> bool:
    """A file, or a link to none: pipes and sockets are not read."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_ours(path: Path) -> bool:
    """Whether a folder of a job holds the pictures that were drawn of its items."""
    if path.name == "_pictures":
        return (path.parent / "_finished").is_dir()
    return path.name == "cases" and _begins(path.parent / "items.jsonl")


def _begins(ledger: Path) -> bool:
    if not ledger.is_file():
        return False
    with ledger.open("rb") as file:
        return file.read(len(LEDGER)) == LEDGER
