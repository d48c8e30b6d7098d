"""COCO: captions, and instances with their masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dexar_fast.data import coco_masks, content, files, pictures, records
from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item, Region
from dexar_fast.errors import InputError

Record = Mapping[str, Any]


def captions(root: Path, split: str = "val2017") -> DataSet:
    """The captions of a picture are its references. Nothing is asked.

    Args:
        root: holds annotations/captions_{split}.json and the pictures in {split}/.
        split: val2017, train2017, val2014, train2014.
    Raises:
        InputError: what is missing, or no JSON.
    """
    document, folder = _document(root, "captions", split)
    return DataSet("coco-captions", pictured(document), partial(_captioned, folder), image_id)


def _captioned(folder: Path, name: str, record: tuple[Record, list[Record]]) -> Item:
    image, annotations = record
    said = tuple(one["caption"].strip() for one in annotations)
    return Item(name, pictures.at(folder / image["file_name"]), references=said)


def instances(root: Path, split: str = "val2017") -> DataSet:
    """A region for each object; crowds are void. Pictures without any annotation are left out. Nothing is asked.

    Args:
        root: holds annotations/instances_{split}.json and the pictures in {split}/.
        split: val2017, train2017, val2014, train2014.
    Raises:
        InputError: what is missing, or no JSON.
    """
    document, folder = _document(root, "instances", split)
    names = categories(document)
    return DataSet(
        "coco-instances", pictured(document), partial(_marked, folder, names), image_id, partial(_told, names)
    )


def _told(names: dict[Any, str], indices: Sequence[int]) -> str:
    """Of the names of all categories: the records hold their ids."""
    return content.of_records([names])


def _marked(folder: Path, names: dict[Any, str], name: str, record: tuple[Record, list[Record]]) -> Item:
    image, annotations = record
    crowds = [coco_masks.outline(one["segmentation"]) for one in annotations if one.get("iscrowd")]
    return Item(
        name,
        pictures.at(folder / image["file_name"]),
        regions=tuple(
            region(one, records.of(names, "category", one["category_id"]))
            for one in annotations
            if not one.get("iscrowd")
        ),
        void=coco_masks.union(crowds) if crowds else None,
    )


def region(annotation: Record, label: str) -> Region:
    """An object from its annotation. Its `bbox` is (left, top, width, height)."""
    left, top, width, height = annotation["bbox"]
    return Region(label, (left, top, left + width, top + height), coco_masks.outline(annotation["segmentation"]))


def categories(document: Record) -> dict[Any, str]:
    """The name of each category by its id."""
    return {key: one["name"] for key, one in records.by(document["categories"], "id").items() if "name" in one}


def image_id(record: tuple[Record, list[Record]]) -> Any:
    """The id of the picture."""
    return record[0]["id"]


def _document(root: Path, kind: str, split: str) -> tuple[dict[str, Any], Path]:
    path, folder = root / "annotations" / f"{kind}_{split}.json", root / split
    files.present(f"coco-{kind}", path, folder)
    lists = ("images", "annotations", *(["categories"] if kind == "instances" else []))
    return records.document(f"coco-{kind}", path, *lists), folder


def pictured(document: Record) -> list[Any]:
    """(picture, its annotations) for each picture that has any; errors for annotations that no picture has."""
    groups, strays = records.grouped(document["annotations"], "image_id")
    images = records.by(document["images"], "id")
    alone = [InputError(f"the annotations hold no picture {key}") for key in groups if key not in images]
    return [*((image, groups[key]) for key, image in images.items() if key in groups), *alone, *strays]
