"""Rows of a table of your own: an item by the names of its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from dexar_fast.data import coco_masks, content, pictures
from dexar_fast.data.item import Item, Outline, Phrase, Region
from dexar_fast.data.labels import not_black
from dexar_fast.errors import ImageError, InputError


class Indexed(Protocol):
    """A table that gives a row, as a mapping, by its index."""

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


LISTS = ("references", "answer_ids", "boxes", "labels", "masks", "phrases")
COLUMNS = ("image", "id", "question", "answer", *LISTS)


def checked(data: str, columns: Mapping[str, str] | None) -> dict[str, str]:
    """Our name of each column, and that in the table; a column that is not named has our name.

    Raises:
        InputError: a name that is none of ours.
    """
    unknown = sorted(set(columns or ()) - set(COLUMNS))
    if unknown:
        raise InputError(f"{data}: columns may name {', '.join(COLUMNS)}, not {unknown[0]!r}")
    return {ours: (columns or {}).get(ours, ours) for ours in COLUMNS}


def told(columns: Mapping[str, str], schema: Any) -> list[str]:
    """The columns of an Arrow table that tell what its rows say: the named ones that hold no bytes of pictures.

    The ids are left out: the records hold them.
    """
    kinds = {field.name: field.type for field in schema}
    named = dict.fromkeys(theirs for ours, theirs in columns.items() if ours != "id")
    return [name for name in named if name in kinds and not content.holds_bytes(kinds[name])]


def item(columns: Mapping[str, str], base: Path, name: str, row: Mapping[str, Any]) -> Item:
    """The item of a row.

    image: a path, from `base` on; the bytes of a file, also as {"bytes": ...}; or a picture. question, answer: texts.
    references: texts, or one. answer_ids: token ids. boxes: [left, top, right, bottom] in pixels. masks: paths of
    pictures that are not black where the object is, or COCO's polygons or runs. labels: the names of boxes and masks.
    phrases: [start, stop] in the answer, or [start, stop, indices of regions].

    Raises:
        InputError: a value of another kind.
        ImageError: no such picture.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"a row is a {type(row).__name__} where names with values are due")
    found = {ours: row[theirs] for ours, theirs in columns.items() if row.get(theirs) is not None}
    found |= {column: _listed(column, found[column]) for column in LISTS if column in found}
    answer, regions = found.get("answer"), _regions(found, base)
    return Item(
        name,
        _picture(row[columns["image"]], base),
        found.get("question"),
        answer,
        references=tuple(found.get("references", ())),
        answer_ids=tuple(_id(one) for one in found.get("answer_ids", ())),
        regions=regions,
        phrases=tuple(_phrase(one, answer or "", len(regions)) for one in found.get("phrases", ())),
    )


def name_of(columns: Mapping[str, str], row: Mapping[str, Any]) -> Any:
    """The id of a row. Raises LookupError where it has none."""
    return id_at((0, row[columns["id"]]))


def item_at(table: Indexed, make: Callable[[str, Any], Item], name: str, record: tuple[int, Any]) -> Item:
    """The item of a row that is read only now, by its index."""
    return make(name, table[record[0]])


def id_at(record: tuple[int, Any]) -> Any:
    """The id beside a row's index. Raises LookupError where the table has none."""
    if record[1] is None:
        raise LookupError("no id")
    return record[1]


def _listed(column: str, value: Any) -> Sequence[Any]:
    """A list, which a text is not: its characters would pass for one. Raises InputError."""
    if column == "references" and isinstance(value, str):
        return [value]
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InputError(f"{column} is a {type(value).__name__} where a list is due")
    return value


def _id(value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise InputError(f"answer_ids holds {value!r}, which is no token id")
    return int(value)


def _picture(value: Any, base: Path) -> pictures.Picture:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return partial(pictures.decoded, value)
    if isinstance(value, Image.Image):
        return partial(_same, value)
    if not value:
        raise ImageError("image is empty")
    if not isinstance(value, str):
        raise ImageError(f"image is a {type(value).__name__} where a path, bytes or a picture is due")
    if value.startswith(("http://", "https://")):
        raise ImageError(f"{value} is on the web: download it and name the path of the file")
    return pictures.at(base / value)


def _same(image: Image.Image) -> Image.Image:
    return image


def _regions(found: Mapping[str, Any], base: Path) -> tuple[Region, ...]:
    boxes, masks, labels = (found.get(column) for column in ("boxes", "masks", "labels"))
    counts = {len(given) for given in (boxes, masks, labels) if given is not None}
    if len(counts) > 1 or (labels is not None and boxes is None and masks is None):
        raise InputError("boxes, masks and labels speak of the same regions: they are equally many")
    count = max(counts, default=0)
    return tuple(
        Region(
            str(labels[index]) if labels is not None else f"region {index}",
            _box(boxes[index]) if boxes is not None else None,
            _outline(masks[index], base) if masks is not None else None,
        )
        for index in range(count)
    )


def _box(value: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, value)
    if not (left < right and top < bottom):
        raise InputError(f"{list(value)} is no box [left, top, right, bottom]")
    return left, top, right, bottom


def _outline(value: Any, base: Path) -> Outline:
    return partial(not_black, pictures.at(base / value)) if isinstance(value, str) else coco_masks.outline(value)


def _phrase(value: Sequence[Any], answer: str, regions: int) -> Phrase:
    start, stop, *named = value
    indices = tuple(named[0]) if named else ()
    if not (0 <= start < stop <= len(answer) and all(0 <= index < regions for index in indices)):
        raise InputError(f"the phrase {list(value)} lies outside of the answer, or names no region")
    return Phrase(start, stop, indices)
