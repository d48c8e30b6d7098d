"""Data of your own: a folder of pictures, JSON lines, Parquet."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from dexar_fast.data import content, files, rows
from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item
from dexar_fast.data.libraries import library
from dexar_fast.errors import InputError, reason


def folder(root: Path, question: str | None = None) -> DataSet:
    """Every picture under a folder, by its path there (`files.pictures_below`). The question is that for all of them.

    Raises:
        InputError: no folder, or no picture in it.
    """
    if not root.is_dir():
        raise InputError(f"folder: {root} is no folder")
    paths = files.pictures_below(root)
    if not paths:
        raise InputError(f"folder: {root} holds no picture")
    return DataSet("folder", paths, partial(_pictured, question), partial(_inside, root))


def _pictured(question: str | None, name: str, path: Path) -> Item:
    return Item(name, path, question)


def _inside(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def jsonl(root: Path, columns: Mapping[str, str] | None = None) -> DataSet:
    """An item a line. Paths count from the folder of the file.

    Args:
        root: the file.
        columns: theirs by our name, where they differ: {"image": "file", "question": "prompt"}; see `rows.item`.
    Raises:
        InputError: no such file, or a column that is none of ours.
    """
    files.present("jsonl", root)
    named = rows.checked("jsonl", columns)
    return DataSet(
        "jsonl", files.json_lines(root), partial(rows.item, named, root.parent), partial(rows.name_of, named)
    )


def parquet(root: Path, columns: Mapping[str, str] | None = None) -> DataSet:
    """An item a row; one group of rows is in memory at a time. Paths count from the folder of the file.

    Args:
        root: the file.
        columns: as in `jsonl`.
    Raises:
        InputError: no such file, damaged, or a column that is none of ours.
        LibraryError: pyarrow is not installed.
    """
    files.present("parquet", root)
    named, groups = rows.checked("parquet", columns), _Groups(root)
    make = partial(rows.item_at, groups, partial(rows.item, named, root.parent))
    return DataSet("parquet", groups.column(named["id"]), make, rows.id_at, partial(content.of_file, root))


class _Groups:
    """The rows of a Parquet file, as dicts."""

    def __init__(self, path: Path):
        self._path = path
        try:
            file = _arrow().ParquetFile(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as Parquet: {reason(error)}") from error
        meta, self._columns = file.metadata, file.schema_arrow.names
        self._ends = list(accumulate(meta.row_group(group).num_rows for group in range(meta.num_row_groups)))
        self._group = -1  # that of _rows
        self._rows: list[dict[str, Any]] = []

    def column(self, name: str) -> list[tuple[int, Any]]:
        """The index of each row with its value in a column; None if there is no such column."""
        count = self._ends[-1] if self._ends else 0
        held = name in self._columns
        return list(
            enumerate(_arrow().read_table(self._path, columns=[name])[name].to_pylist() if held else [None] * count)
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        group = bisect_right(self._ends, index)
        if group != self._group:
            self._rows = _arrow().ParquetFile(self._path).read_row_group(group).to_pylist()
            self._group = group
        return self._rows[index - (self._ends[group - 1] if group else 0)]


def _arrow() -> Any:
    return library("pyarrow.parquet", "Parquet")
