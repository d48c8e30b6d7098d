"""A Ray dataset of pictures and questions mapped to one of tokens and their maps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dexar_fast.data import Item, rows
from dexar_fast.errors import InputError, reason
from dexar_fast.explanation import Explanation
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.explaining import Found, explained
from dexar_fast.jobs.finished import table
from dexar_fast.jobs.work import told
from dexar_fast.scale import cluster, resuming

READ = ("image", "id", "question", "answer")
LEFT_OUT = "file"  # there is none
BATCH = 16


def ray_map(
    ds: Any,
    model: str | None = None,
    prompt: str | None = None,
    *,
    method: Any = "dex-ar",
    columns: Mapping[str, str] | None = None,
    written: bool = False,
    batch_size: int = BATCH,
    actors: int | None = None,
    done: str | None = None,
    options: Mapping[str, Any] | None = None,
    **generate_kwargs: Any,
) -> Any:
    """Maps actors that hold an Explainer over a Ray dataset: `ray_map(ds, "llava-hf/...").write_parquet("out")`.

    Rows keep their order, an actor that dies is restarted, and a row that cannot be explained gives one with its error.

    Args:
        ds: with a column image (paths that every machine sees, bytes of files, or arrays [height, width, channels]) and
            perhaps id, question and answer.
        model: a name on the Hub or a folder; None is the embedded model.
        prompt, written: as in `dexar_fast.jobs.asked.Asked`.
        method: as the Explainer takes it.
        columns: theirs by our name, where they differ: {"image": "path"}.
        batch_size: rows explained at once.
        actors: how many; None is one for each GPU, or one.
        done: a folder that the same call filled before it was killed: rows whose id and prompt its tables hold are left
            out. A row without an id has the path of its picture for one.
        options: further ones of `Explainer.from_pretrained`.
        generate_kwargs: of generate().
    Returns:
        A Ray dataset with a row for each token: the columns of `dexar_fast.jobs.finished.table.schema` but "file".
    Raises:
        InputError: a column that is none of ours, or no actors. LibraryError: Ray is not installed.
    """
    found = cluster.ray()
    ds.context.execution_options.preserve_order = True
    asked = Asked(prompt, written, batch_size, generate_kwargs)
    made = {"model": model, "options": {"method": method, **(options or {})}, "asked": asked}
    names = made["columns"] = rows.checked("ray_map", columns)
    left = ds if done is None else resuming.left(ds, Path(done), partial(key_of, asked, names))
    return left.map_batches(
        Mapper, batch_size=batch_size, batch_format="numpy", fn_constructor_kwargs=made, **cluster.pool(found, actors)
    )


class Mapper:
    """The actor: loads the model once, then explains batches of rows."""

    def __init__(self, model: str | None, options: Mapping[str, Any], asked: Asked, columns: Mapping[str, str]) -> None:
        from dexar_fast.explainer import Explainer

        self._explainer = Explainer.from_pretrained(model, **options)
        self._asked = asked
        self._columns = {name: columns[name] for name in READ}

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """The tokens of a batch of rows, as an Arrow table."""
        count = len(next(iter(batch.values())))
        items = [item_of(self._row(batch, index)) for index in range(count)]
        found = explained(self._explainer, [self._asked.read(item) for item in items], self._asked, seed=0)
        some = [self._tokens(item, one) for item, one in zip(items, found, strict=True)]
        types = table.schema().remove(table.schema().get_field_index(LEFT_OUT))
        columns = {name: [value for one in some for value in one[name]] for name in types.names}
        return table.arrow().table(columns, schema=types)

    def _tokens(self, item: Item, found: Found) -> table.Columns:
        about = {"item": item.id, **told(self._asked, item, found)}
        return table.rows(about, found if isinstance(found, Explanation) else None)

    def _row(self, batch: Mapping[str, Any], index: int) -> dict[str, Any]:
        return {ours: _plain(batch[theirs][index]) for ours, theirs in self._columns.items() if theirs in batch}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def key_of(asked: Asked, columns: Mapping[str, str], row: Mapping[str, Any]) -> resuming.Key:
    """What tells a row of a Ray dataset from the others."""
    name, image, question = (row.get(columns[ours]) for ours in ("id", "image", "question"))
    item = Item(resuming.name_of(name, image), question=_text(question))
    return item.id, asked.text_or_none(item)


def item_of(row: Mapping[str, Any]) -> Item:
    """The item of a row by our names; with its error if there is none."""
    image = row.get("image")
    name = resuming.name_of(row.get("id"), image)
    own = {column: column for column in rows.COLUMNS}
    try:
        if isinstance(image, np.ndarray):
            return Item(name, partial(Image.fromarray, image), row.get("question"), row.get("answer"))
        return rows.item(own, Path(), name, row)
    except Exception as error:  # a row may hold anything
        return Item(name, question=_text(row.get("question")), error=InputError(f"{name}: {reason(error)}"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
