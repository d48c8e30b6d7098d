"""What a killed pipeline has left: the rows of a Ray dataset whose items no table holds yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dexar_fast.data.libraries import library

TORN = "_torn-"  # before the name of a table that a kill cut off: readers of a folder pass over it
COLUMNS = ["item", "prompt"]
Key = tuple[str, str | None]  # of a row: the values of these columns


def left(ds: Any, folder: Path, key_of: Callable[[Mapping[str, Any]], Key]) -> Any:
    """The rows without those that the tables of a folder hold; a table that was cut off is put aside.

    Args:
        key_of: the key of a row. Rows without a name are all left: nothing tells them apart.
    """
    found = {key for path in sorted(folder.glob("*.parquet")) for key in _keys(path)}
    return ds.filter(partial(_is_left, found, key_of)) if found else ds


def name_of(name: Any, image: Any) -> str:
    """The id of a row; the path of its picture where it has none."""
    return str(name if name is not None else image if isinstance(image, str) else "")


def _is_left(found: set[Key], key_of: Callable[[Mapping[str, Any]], Key], row: Mapping[str, Any]) -> bool:
    key = key_of(row)
    return key[0] == "" or key not in found


def _keys(path: Path) -> Iterator[Key]:
    parquet, pyarrow = library("pyarrow.parquet", "a table in Parquet"), library("pyarrow", "a table in Parquet")
    if path.name.startswith("_"):
        return
    try:
        columns = parquet.read_table(path, columns=COLUMNS)
        yield from set(zip(*(columns[name].to_pylist() for name in COLUMNS), strict=True))
    except pyarrow.ArrowInvalid:
        path.rename(path.with_name(TORN + path.name))
