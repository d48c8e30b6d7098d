"""POPE and RePOPE: is there such an object in the picture? The pictures are those of COCO 2014."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dexar_fast.data import files, pictures
from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item


def read(root: Path, split: str = "random", images: str | Path | None = None) -> DataSet:
    """References are "yes" or "no".

    Args:
        root: holds coco_pope_{split}.json, itself or in output/coco/.
        split: random, popular or adversarial.
        images: the pictures of val2014; by default val2014/ or images/ of `root`.
    Raises:
        InputError: what is missing.
    """
    return _read("pope", root, (root / "output" / "coco", root), split, images)


def corrected(root: Path, split: str = "random", images: str | Path | None = None) -> DataSet:
    """The same of RePOPE, whose coco_repope_{split}.json lie in annotations/ of `root`, or in itself."""
    return _read("repope", root, (root / "annotations", root), split, images)


def _read(name: str, root: Path, folders: tuple[Path, Path], split: str, images: str | Path | None) -> DataSet:
    path = files.first(name, (folder / f"coco_{name}_{split}.json" for folder in folders))
    pictured = files.first(name, (Path(images),) if images else (root / "val2014", root / "images"))
    return DataSet(name, files.json_lines(path), partial(_item, pictured), _question_id)


def _question_id(record: Mapping[str, Any]) -> Any:
    return record["question_id"]


def _item(folder: Path, name: str, record: Mapping[str, Any]) -> Item:
    return Item(name, pictures.at(folder / record["image"]), record["text"], references=(record["label"],))
