"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that refer to one object of a picture of COCO 2014."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from dexar_fast.data import content, files, pictures, records
from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item, Phrase, Region
from dexar_fast.data.readers import coco
from dexar_fast.errors import InputError, reason

Record = Mapping[str, Any]


def refcoco(root: Path, by: str = "unc", split: str = "val") -> DataSet:
    """An item for each expression: it is the answer, and one phrase, of the region that it refers to. Nothing is asked.

    Args:
        root: holds refcoco/refs({by}).p, refcoco/instances.json, and the pictures in images/mscoco/images/train2014 or
            train2014.
        by: whose split: unc or google.
        split: train, val, testA, testB: those that `by` has.
    Raises:
        InputError: what is missing or damaged, or no such split.
    """
    return _read("refcoco", root, by, split)


def refcoco_plus(root: Path, by: str = "unc", split: str = "val") -> DataSet:
    """The same, of the folder refcoco+/: expressions without words of place."""
    return _read("refcoco+", root, by, split)


def refcocog(root: Path, by: str = "umd", split: str = "val") -> DataSet:
    """The same, of the folder refcocog/: longer expressions, in the split of umd or google."""
    return _read("refcocog", root, by, split)


def _read(name: str, root: Path, by: str, split: str) -> DataSet:
    refs, marked = root / name / f"refs({by}).p", root / name / "instances.json"
    files.present(name, refs, marked)
    folder = files.first(name, (root / "images" / "mscoco" / "images" / "train2014", root / "train2014"))
    document = records.document(name, marked, "images", "annotations", "categories")
    expressions = _expressions(name, _unpickled(refs), split)
    make = partial(_item, folder, _Marked(document))
    return DataSet(name, expressions, make, _expression_id, partial(content.of_files, (marked,)))


class _Marked:
    """What instances.json says, by id."""

    def __init__(self, document: Record):
        self.images, self.annotations = (records.by(document[name], "id") for name in ("images", "annotations"))
        self.categories = coco.categories(document)

    def region(self, ref: Record) -> Region:
        annotation = records.of(self.annotations, "annotation", ref["ann_id"])
        return coco.region(annotation, records.of(self.categories, "category", ref["category_id"]))


def _item(folder: Path, marked: _Marked, name: str, record: tuple[Record, Record]) -> Item:
    ref, sentence = record
    said = sentence["sent"]
    image = records.of(marked.images, "picture", ref["image_id"])
    return Item(
        name,
        pictures.at(folder / image["file_name"]),
        answer=said,
        regions=(marked.region(ref),),
        phrases=(Phrase(0, len(said), (0,)),),
    )


def _expression_id(record: tuple[Record, Record]) -> str:
    return f"{record[0]['ref_id']}_{record[1]['sent_id']}"


def _expressions(name: str, refs: list[Record], split: str) -> list[tuple[Record, Record]]:
    splits = sorted({ref["split"] for ref in refs})
    if split not in splits:
        raise InputError(f"{name}: split must be one of {', '.join(splits)}, not {split!r}")
    return [(ref, sentence) for ref in refs if ref["split"] == split for sentence in ref["sentences"]]


class _Plain(pickle.Unpickler):
    """Reads lists, dicts, texts and numbers alone: a pickle that names any function or class is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}, where plain data is due")


def _unpickled(path: Path) -> list[Record]:
    try:
        with open(path, "rb") as file:
            found = _Plain(file, encoding="latin1").load()  # written by Python 2
    except Exception as error:  # a damaged pickle raises any kind of error
        raise InputError(f"{path} cannot be read: {reason(error)}") from error
    if not (isinstance(found, list) and all(map(_is_reference, found))):
        raise InputError(f"{path} is no list of references, each with a split and a list of sentences")
    return found


def _is_reference(ref: Any) -> bool:
    return isinstance(ref, dict) and isinstance(ref.get("split"), str) and isinstance(ref.get("sentences"), list)
