"""Data of your own: a folder of pictures, JSON lines, Parquet."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
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
    beside = partial(_told, groups, rows.told(named, groups.schema))
    return DataSet("parquet", groups.column(named["id"]), make, rows.id_at, beside)


def _told(groups: _Groups, columns: list[str], indices: Sequence[int]) -> str:
    """Of some rows, without pictures: those may be many gigabytes."""
    return content.of_records(groups.rows(columns, indices)) if columns else ""


class _Groups:
    """The rows of a Parquet file, as dicts."""

    def __init__(self, path: Path):
        self._path = path
        try:
            file = _arrow().ParquetFile(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as Parquet: {reason(error)}") from error
        meta, self.schema = file.metadata, file.schema_arrow
        self._ends = list(accumulate(meta.row_group(group).num_rows for group in range(meta.num_row_groups)))
        self._group = -1  # that of _rows
        self._rows: list[dict[str, Any]] = []

    def column(self, name: str) -> list[tuple[int, Any]]:
        """The index of each row with its value in a column; None if there is no such column."""
        count = self._ends[-1] if self._ends else 0
        held = name in self.schema.names
        return list(
            enumerate(_arrow().read_table(self._path, columns=[name])[name].to_pylist() if held else [None] * count)
        )

    def rows(self, columns: list[str], indices: Sequence[int]) -> Iterator[Any]:
        """Some columns of the rows at these indices, in the order of the file; one group is in memory at a time.

        Of a group that cannot be read comes the kind of its error.
        """
        places: dict[int, list[int]] = {}
        for index in sorted(indices):
            group = bisect_right(self._ends, index)
            places.setdefault(group, []).append(index - self._start(group))
        for group, inside in places.items():
            try:
                found = _arrow().ParquetFile(self._path).read_row_group(group, columns=columns).select(columns)
                for part in found.take(inside).to_batches(max_chunksize=content.LOT):
                    yield from part.to_pylist()
            except Exception as error:  # a damaged file raises any kind; reading the items says what is wrong with it
                yield type(error).__name__

    def _start(self, group: int) -> int:
        return self._ends[group - 1] if group else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        group = bisect_right(self._ends, index)
        if group != self._group:
            self._rows = _arrow().ParquetFile(self._path).read_row_group(group).to_pylist()
            self._group = group
        return self._rows[index - self._start(group)]


def _arrow() -> Any:
    return library("pyarrow.parquet", "Parquet")
