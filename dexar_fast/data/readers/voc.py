"""PascalVOC 2012, segmentation: JPEGImages, SegmentationClass, ImageSets/Segmentation."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from dexar_fast.data import files, pictures
from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item, Region
from dexar_fast.data.labels import labelled, labels
from dexar_fast.errors import InputError

# By label, 1 to 20; 0 is the background.
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
VOID = 255


def read(root: Path, split: str = "val") -> DataSet:
    """A region for each class in the picture; the border of objects is void. Nothing is asked.

    Args:
        root: VOC2012, or what holds it or VOCdevkit.
        split: a list in ImageSets/Segmentation: train, val, trainval.
    Raises:
        InputError: what is missing.
    """
    inside = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    home = files.first("voc", (folder / "ImageSets" for folder in inside)).parent
    names = home / "ImageSets" / "Segmentation" / f"{split}.txt"
    files.present("voc", names, home / "JPEGImages", home / "SegmentationClass")
    listed = files.lines(names)
    return DataSet("voc", listed, partial(_item, home), str)


def _marked(home: Path, record: str) -> Path:
    return home / "SegmentationClass" / f"{record}.png"


def _item(home: Path, name: str, record: str) -> Item:
    path = _marked(home, record)
    found = set(np.unique(labels(path)).tolist()) - {0}
    foreign = found - {*range(len(CLASSES) + 1), VOID}
    if foreign:
        raise InputError(f"{path} holds the label {min(foreign)}, which is no class")
    regions = [Region(CLASSES[label - 1], outline=partial(labelled, path, label)) for label in sorted(found - {VOID})]
    return Item(
        name,
        pictures.at(home / "JPEGImages" / f"{record}.jpg"),
        regions=tuple(regions),
        void=partial(labelled, path, VOID) if VOID in found else None,
    )
