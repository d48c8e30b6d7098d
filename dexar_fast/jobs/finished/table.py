"""The table of a job: a row for each token, as Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from dexar_fast.data.libraries import library
from dexar_fast.errors import FileError, cause
from dexar_fast.explanation import Explanation
from dexar_fast.vision.grid import Grid

ITEMS = 64  # in a group of rows
COLUMNS = {
    "item": "string",
    "image": "string",
    "prompt": "string",
    "token_index": "int32",
    "token": "string",
    "token_id": "int64",
    "weight": "float32",
    "score": "float32",
    "map": "list",
    "height": "int32",
    "width": "int32",
    "file": "string",
    "error": "string",
}
Columns = dict[str, list[Any]]


def arrow() -> Any:
    """pyarrow. Raises LibraryError: it is not installed."""
    return library("pyarrow", "a table in Parquet")


def schema() -> Any:
    """The columns of the table and their types.

    item: its id. image: the path of its picture, if it has one. prompt: what was asked. token_index: from 0 on.
    token, token_id. weight: delta of Eq. 5, or what the method weighs tokens by; null if it weighs none. score: the
    largest S_img minus the largest S_txt, delta before its relu; null for methods that score no heads. map: the token's
    raw values, the rows of `height` x `width` cells one after the other; where height and width are null, those of all
    visual tokens in the order of the sequence, as the picture has several grids, regions or none. file: of the whole
    explanation, from the folder on. error: why an item has no tokens: it has one row, and no more than item, image and
    prompt.
    """
    pa = arrow()
    types = {"list": pa.list_(pa.float32())}
    return pa.schema([(name, types.get(kind) or getattr(pa, kind)()) for name, kind in COLUMNS.items()])


def rows(told: Mapping[str, Any], found: Explanation | None) -> Columns:
    """The columns of one item.

    Args:
        told: its item, image, prompt, file and error. found: its explanation, if there is one.
    """
    own: Columns = {name: [None] for name in COLUMNS} if found is None else _tokens(found)
    count = len(own["token"])
    return {name: [_text(told[name])] * count if name in told else values for name, values in own.items()}


def _text(value: str | None) -> str | None:
    """With an escape for each byte of a file's name that is no text."""
    return value if value is None else value.encode("utf-8", "backslashreplace").decode()


def _tokens(found: Explanation) -> Columns:
    values, height, width = _maps(found)
    count = len(found)
    return dict.fromkeys(COLUMNS, [None] * count) | {
        "token_index": list(range(count)),
        "token": list(found.tokens),
        "token_id": found.token_ids.tolist(),
        "weight": found.token_weights.tolist() if found.weighted else [None] * count,
        "score": _scores(found),
        "map": list(values),
        "height": [height] * count,
        "width": [width] * count,
    }


def _scores(found: Explanation) -> list[float | None]:
    if not found.visual_scores[0].numel():
        return [None] * len(found)
    return (found.visual_scores.amax((1, 2)) - found.text_scores.amax((1, 2))).tolist()


def _maps(found: Explanation) -> tuple[NDArray[np.float32], int | None, int | None]:
    """The values [T, cells], and height and width if they are one grid."""
    values = found.token_maps.float().numpy()
    if len(found.grids) != 1 or not isinstance(grid := found.grids[0], Grid):
        return values, None, None
    return values[:, grid.cells.ravel()], grid.rows, grid.columns


def write(path: Path, items: Iterator[Columns]) -> None:
    """Writes the rows of items, a whole file or none. Raises FileError, LibraryError."""
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        _write(temporary, items)
        temporary.replace(path)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"cannot write {path}: {cause(error)}; choose another path or free it") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _write(path: Path, items: Iterator[Columns]) -> None:
    types = schema()
    with library("pyarrow.parquet", "a table in Parquet").ParquetWriter(path, types, compression="zstd") as writer:
        for group in _groups(items):
            writer.write_table(arrow().table(group, schema=types))


def _groups(items: Iterator[Columns]) -> Iterator[Columns]:
    """The rows of some items at a time."""
    while some := list(islice(items, ITEMS)):
        yield {name: [value for one in some for value in one[name]] for name in COLUMNS}
