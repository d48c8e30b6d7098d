"""Anything that the `datasets` library opens, by the names of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from dexar_fast.data import content, rows
from dexar_fast.data.dataset import DataSet
from dexar_fast.data.libraries import library
from dexar_fast.errors import InputError, reason


def read(
    root: Any, columns: Mapping[str, str] | None = None, split: str = "test", config: str | None = None
) -> DataSet:
    """An item a row; pictures are decoded when they are opened.

    Args:
        root: a name on the Hub, a folder that `save_to_disk` wrote, or a Dataset. The library downloads what it lacks.
        columns: theirs by our name, where they differ: {"image": "img", "question": "query"}; see `rows.item`.
        split, config: which part of a data set that has several; not read if `root` is a Dataset.
    Raises:
        InputError: what the library says it cannot open, or a column that is not there.
        LibraryError: `datasets` is not installed.
    """
    named, module = rows.checked("datasets", columns), library("datasets", "the reader 'datasets'")
    table = _undecoded(module, _opened(module, root, split, config))
    absent = [column for column in {"image": "image", **(columns or {})}.values() if column not in table.column_names]
    if absent:
        raise InputError(f"datasets: there is no column {absent[0]!r}, but {', '.join(table.column_names)}")
    ids = table[named["id"]] if named["id"] in table.column_names else [None] * len(table)
    make = partial(rows.item_at, table, partial(rows.item, named, Path()))
    beside = partial(_told, table, rows.told(named, table.features.arrow_schema))
    return DataSet("datasets", list(enumerate(ids)), make, rows.id_at, beside)


def _told(table: Any, columns: list[str], indices: Sequence[int]) -> str:
    """Of some rows, without pictures: those may be many gigabytes."""
    if not columns:
        return ""
    chosen = table.select_columns(columns).select(indices).with_format("arrow")
    return content.of_records(row for part in chosen.iter(content.LOT) for row in part.to_pylist())


def _opened(module: ModuleType, root: Any, split: str, config: str | None) -> Any:
    found = _loaded(module, root, split, config) if isinstance(root, str | Path) else root
    if isinstance(found, dict):
        if split not in found:
            raise InputError(f"datasets: split must be one of {', '.join(found)}, not {split!r}")
        found = found[split]
    if not isinstance(found, module.Dataset):
        raise InputError(f"datasets: a {type(found).__name__} has no rows by index: pass a Dataset (no streaming)")
    return found


def _loaded(module: ModuleType, root: str | Path, split: str, config: str | None) -> Any:
    try:
        if any((Path(root) / name).exists() for name in ("state.json", "dataset_dict.json")):  # of save_to_disk
            return module.load_from_disk(root)
        return module.load_dataset(str(root), config, split=split)
    except Exception as error:  # the library raises any kind of error
        raise InputError(f"datasets: {root} cannot be opened: {reason(error)}") from error


def _undecoded(module: ModuleType, table: Any) -> Any:
    """The table with the bytes of pictures in their place, so that a damaged one costs its own row."""
    for name, feature in table.features.items():
        if isinstance(feature, module.Image):
            table = table.cast_column(name, module.Image(decode=False))
    return table
