"""GranDf: captions whose phrases are grounded in masks, in the four forms in which GLaMM publishes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dexar_fast.data import coco_masks, content, files, pictures, records
from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item, Outline, Phrase, Region
from dexar_fast.data.readers import coco
from dexar_fast.errors import InputError

Record = Mapping[str, Any]
Grounded = tuple[str, Sequence[int] | None, list[Outline]]  # a phrase, its characters if they are told, its masks

# (part, split): the file of annotations, the folder of pictures; the latter beside GranDf/ but for its own pictures.
_TRAIN = {
    "human": ("GranDf_HA_GCG_train.json", "GranDf/GranDf_HA_images/train"),
    "openpsg": ("OpenPsgGCG_train.json", "coco_2017/train2017"),
    "refcocog": ("RefCOCOg_GCG_train.json", "coco_2014/train2014"),
    "flickr": ("flickr_mergedGT_GCG_train.json", "flikcr_30k/train"),
}


def read(root: Path, split: str = "val", part: str = "human") -> DataSet:
    """The caption is the answer; its grounded phrases are its phrases, each with one region. Nothing is asked.

    Args:
        root: holds GranDf/annotations/train or val_test, GranDf/GranDf_HA_images, and for the other parts the pictures
            in coco_2017/train2017, coco_2014/train2014 or flikcr_30k/train (so spelt).
        split: val or test (people's captions), or train.
        part: of the split train: human, openpsg, refcocog or flickr.
    Raises:
        InputError: what is missing, no JSON, no such split or part.
    """
    annotations = root / "GranDf" / "annotations"
    if split in ("val", "test") and part == "human":
        return _judged(root, annotations / "val_test", split)
    if split != "train" or part not in _TRAIN:
        raise InputError(f"grandf: split is val, test or train; of train alone, part is one of {', '.join(_TRAIN)}")
    path, folder = annotations / "train" / _TRAIN[part][0], root / _TRAIN[part][1]
    files.present("grandf", path, folder)
    if part == "flickr":
        captioned = coco.pictured(records.document("grandf", path, "images", "annotations"))
        return DataSet("grandf", captioned, partial(_of_flickr, folder), coco.image_id)
    make = _of_refcocog if part == "refcocog" else _of_groundings
    return DataSet("grandf", files.json_of(path, list), partial(make, folder), _file_stem)


def _file_stem(record: Record) -> str:
    return Path(record["img_file_name"] if "img_file_name" in record else record["file_name"]).stem


def _of_groundings(folder: Path, name: str, record: Record) -> Item:
    found = [
        (phrase, one["token_positives"], [coco_masks.outline(runs) for runs in one["rle_masks"]])
        for phrase, one in record["groundings"].items()
    ]
    return _item(folder / record["file_name"], name, record["caption"], found)


def _of_refcocog(folder: Path, name: str, record: Record) -> Item:
    found: list[Grounded] = [
        (one["sentence"], None, [coco_masks.outline(one["segmentation"])]) for one in record["refs"]
    ]
    return _item(folder / record["img_file_name"], name, record["caption"], found)


def _of_flickr(folder: Path, name: str, record: tuple[Record, list[Record]]) -> Item:
    image, annotations = record
    caption = image["caption"]
    found: list[Grounded] = []
    for one in annotations:
        start, stop = one["tokens_positive"][0]
        found.append((caption[start:stop], _shifted(caption, start, stop), [coco_masks.outline(one["sam_mask"])]))
    return _item(folder / image["file_name"], name, caption, found)


def _shifted(caption: str, start: int, stop: int) -> tuple[int, int]:
    """Characters of a caption, counted in what is said of it. Raises InputError."""
    if not 0 <= start <= stop <= len(caption):
        raise InputError(f"the phrase {caption[start:stop]!r} lies outside of its caption")
    said = _said(caption)
    before = caption.find(said)
    first, last = (min(max(place - before, 0), len(said)) for place in (start, stop))
    return first, last


def _judged(root: Path, annotations: Path, split: str) -> DataSet:
    """val and test: captions and masks in two files, the labels of a caption in the order of its picture's masks."""
    said, marked = (annotations / f"{split}_gcg_coco_{kind}_gt.json" for kind in ("caption", "mask"))
    folder = root / "GranDf" / "GranDf_HA_images" / "val_test"
    files.present("grandf", said, marked, folder)
    captions = records.document("grandf", said, "annotations")["annotations"]
    masks, strays = records.grouped(records.document("grandf", marked, "annotations")["annotations"], "image_id")
    make, beside = partial(_of_judged, folder, masks), partial(content.of_files, (marked,))
    return DataSet("grandf", [*captions, *strays], make, _image_id, beside)


def _image_id(record: Record) -> Any:
    return record["image_id"]


def _of_judged(folder: Path, masks: dict[Any, list[Record]], name: str, record: Record) -> Item:
    labels, marked = record["labels"], records.of(masks, "mask of picture", record["image_id"])
    if len(labels) != len(marked):
        raise InputError(f"grandf: picture {name} has {len(labels)} labels and {len(marked)} masks")
    outlines = [[coco_masks.outline(one["segmentation"])] for one in marked]
    found: list[Grounded] = [(label, None, own) for label, own in zip(labels, outlines, strict=True)]
    return _item(folder / f"{name}.jpg", name, record["caption"], found)


def _item(path: Path, name: str, caption: str, found: Sequence[Grounded]) -> Item:
    said = _said(caption)  # positions count from there
    return Item(
        name,
        pictures.at(path),
        answer=said,
        regions=tuple(Region(phrase, outline=coco_masks.union(outlines)) for phrase, _, outlines in found),
        phrases=tuple(_phrases(said, found)),
    )


def _said(caption: str) -> str:
    return caption.strip('"').strip()


def _phrases(said: str, found: Sequence[Grounded]) -> Iterator[Phrase]:
    """Where each phrase stands; one that the caption does not hold gives none."""
    earlier: Counter[str] = Counter()
    for index, (phrase, span, _) in enumerate(found):
        text = phrase.strip()
        start, stop = span or _span(said, text, earlier[text.lower()])
        earlier[text.lower()] += 1
        if not 0 <= start <= stop <= len(said):
            raise InputError(f"the phrase {phrase!r} lies outside of its caption")
        if start < stop:
            yield Phrase(start, stop, (index,))


def _span(said: str, text: str, earlier: int) -> tuple[int, int]:
    """Where a text stands, whole words first; behind the places of the labels `earlier`, as far as there are more."""
    written = re.escape(text)
    for pattern in (rf"(?<!\w){written}(?!\w)", written):
        places = [each.span() for each in re.finditer(pattern, said, re.IGNORECASE)]
        if places:
            return places[min(earlier, len(places) - 1)]
    return 0, 0
