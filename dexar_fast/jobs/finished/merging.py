"""What all workers of a job have finished, as one table and a page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.jobs.finished import ledger, page, table
from dexar_fast.jobs.finished.folder import EXPLANATIONS, TABLE, Folder

INDEX, COUNT, ERROR = "index", "items", "error"


@dataclass(frozen=True)
class Merged:
    """Table and page of a job, how many of its items they hold, and the errors of those that failed, by their ids."""

    path: Path
    page: Path
    finished: int
    items: int
    failed: dict[str, str]


def finished(folder: Folder) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was asked, and the record of each finished item by its id, in the order of the data.

    Raises:
        InputError: no job has begun there, or its workers were asked different things. FileError: a damaged ledger.
    """
    begun = folder.ledgers()
    if not begun:
        raise InputError(f"no job has begun in {folder.path}: give the folder that `run` was given with --out")
    asked, _ = max((ledger.read(path) for path in begun), key=lambda found: bool(found[1]))  # one with records
    return asked, dict(sorted(compared(folder, asked).items(), key=lambda each: each[1][INDEX]))


def compared(folder: Folder, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The record of each finished item by its id; of several workers' records one without an error.

    Raises:
        InputError: a worker that has finished some was asked something else than `asked`. FileError: a damaged ledger.
    """
    records: dict[str, Any] = {}
    for path in folder.ledgers():
        begun, found = ledger.read(path)
        ledger.compare(path, begun if found else asked, asked)
        records |= {name: record for name, record in found.items() if name not in records or record[ERROR] is None}
    return records


def is_lost(folder: Folder, record: Mapping[str, Any]) -> bool:
    """Whether a finished item failed, or has no explanation any more."""
    return record[ERROR] is not None or not folder.explanation(record[INDEX]).exists()


def merge(out: str | os.PathLike[str]) -> Merged:
    """Writes table and page of all items that are finished, in the order of the data; the same whoever finished them.

    Raises as `finished`; FileError, too, if an explanation is missing or the table cannot be written.
    """
    folder = Folder(Path(out))
    asked, records = finished(folder)
    path = folder.path / TABLE
    table.write(path, _rows(folder, records))
    failed = {name: record[ERROR] for name, record in records.items() if record[ERROR] is not None}
    return Merged(path, page.write(folder, asked, records), len(records), asked[COUNT], failed)


def _rows(folder: Folder, records: Mapping[str, Any]) -> Iterator[table.Columns]:
    for name, record in records.items():
        index, error = record[INDEX], record[ERROR]
        path = folder.explanation(index)
        told = {"item": name, "image": record["image"], "prompt": record["prompt"], "error": error}
        told["file"] = f"{EXPLANATIONS}/{path.name}" if error is None else None
        yield table.rows(told, Explanation.load(path) if error is None else None)
