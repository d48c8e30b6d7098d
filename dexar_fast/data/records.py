"""JSON records of annotations: found by a field, grouped by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dexar_fast.data import files
from dexar_fast.errors import InputError

Record = Mapping[str, Any]
Found = TypeVar("Found")


def document(data: str, path: Path, *lists: str) -> dict[str, Any]:
    """A JSON document that holds these lists. Raises InputError."""
    found = files.json_of(path, dict)
    absent = [name for name in lists if not isinstance(found.get(name), list)]
    if absent:
        raise InputError(f"{data}: {path} holds no list {absent[0]!r}")
    return found


def by(records: Sequence[Any], key: str) -> dict[Any, Record]:
    """The records that have this field, by its value."""
    return {one[key]: one for one in records if _has(one, key)}


def of(found: Mapping[Any, Found], what: str, key: Any) -> Found:
    """What lies under a key. Raises InputError, which says what is missing."""
    if key not in found:
        raise InputError(f"the annotations hold no {what} {key}")
    return found[key]


def grouped(annotations: Sequence[Any], key: str) -> tuple[dict[Any, list[Record]], list[InputError]]:
    """Annotations by one of their fields, in their order; an error for each that lacks it."""
    groups: dict[Any, list[Record]] = {}
    for one in annotations:
        if _has(one, key):
            groups.setdefault(one[key], []).append(one)
    return groups, [
        InputError(f"annotation {index} has no {key}") for index, one in enumerate(annotations) if not _has(one, key)
    ]


def _has(record: Any, key: str) -> bool:
    return isinstance(record, Mapping) and isinstance(record.get(key), int | str)
