"""What a killed pipeline has left: the rows of a Ray dataset whose items no table holds yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dexar_fast.data.libraries import library

TORN = "_torn-"  # before the name of a table that a kill cut off: readers of a folder pass over it


def left(ds: Any, folder: Path, columns: Mapping[str, str]) -> Any:
    """The rows without those that the tables of a folder hold; a table that was cut off is put aside.

    Args:
        columns: the names of "id" and "image" in the rows.
    """
    found = {name for path in sorted(folder.glob("*.parquet")) for name in _items(path)}
    return ds.filter(partial(_is_left, found, columns["id"], columns["image"])) if found else ds


def name_of(name: Any, image: Any) -> str:
    """The id of a row; the path of its picture where it has none."""
    return str(name or (image if isinstance(image, str) else ""))


def _is_left(found: set[str], name: str, image: str, row: Mapping[str, Any]) -> bool:
    return name_of(row.get(name), row.get(image)) not in found


def _items(path: Path) -> Iterator[str]:
    parquet, pyarrow = library("pyarrow.parquet", "a table in Parquet"), library("pyarrow", "a table in Parquet")
    if path.name.startswith("_"):
        return
    try:
        yield from set(parquet.read_table(path, columns=["item"])["item"].to_pylist())
    except pyarrow.ArrowInvalid:
        path.rename(path.with_name(TORN + path.name))
