"""Questions and answers about the objects of any segmentation set, with their visual words marked.

The form is that of PascalVOC-QA, on which DEX-AR's paper measures its token filter and which is published nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item, Phrase
from dexar_fast.data.readers import voc as voc_reader
from dexar_fast.errors import InputError

Part = tuple[str, tuple[int, ...]]  # a piece of an answer, and the regions that it names; filler names none


def of(data: DataSet) -> DataSet:
    """Three items for each of a data set whose items have regions: what there is, whether there is, and where it is.

    Phrases are the names of objects, with all regions of that name, and the word that says where one lies. All other
    words are filler. The same data give the same questions. An item without regions gives items with an error.
    """
    records = list(product(range(len(data)), _KINDS))
    return DataSet(f"{data.name}-qa", records, partial(_item, data), partial(_name, data), partial(_told, data))


def voc(root: Path, split: str = "val") -> DataSet:
    """`of` PascalVOC 2012; see the reader 'voc'."""
    return of(voc_reader.read(root, split))


def _told(data: DataSet, indices: Sequence[int]) -> str:
    """What the items behind some questions are made from."""
    return data.content(sorted({index // len(_KINDS) for index in indices}))


def _name(data: DataSet, record: tuple[int, str]) -> str:
    return f"{data.ids[record[0]]}/{record[1]}"


def _item(data: DataSet, name: str, record: tuple[int, str]) -> Item:
    item = data[record[0]]
    if item.error is None and not item.regions:
        raise InputError(f"item {item.id!r} has no region to ask about")
    if item.error is not None:
        return replace(item, id=name)
    question, parts = _KINDS[record[1]](item)
    return replace(item, id=name, question=question, answer=_text(parts), phrases=_phrases(parts))


def _what(item: Item) -> tuple[str, list[Part]]:
    """'There is a cat, a dog and a sofa in the picture.'"""
    groups = list(_groups(item).items())
    parts: list[Part] = [("There is", ())]
    for index, (label, regions) in enumerate(groups):
        joint = "" if index == 0 else " and" if index == len(groups) - 1 else ","
        parts += [(f"{joint} {_article(label)} ", ()), (label, regions)]
    return "What is in the picture?", [*parts, (" in the picture.", ())]


def _whether(item: Item) -> tuple[str, list[Part]]:
    """'Yes, there is a cat in the picture.': of the last object."""
    label, regions = list(_groups(item).items())[-1]
    named = f"{_article(label)} "
    return (
        f"Is there {named}{label} in the picture?",
        [(f"Yes, there is {named}", ()), (label, regions), (" in the picture.", ())],
    )


def _where(item: Item) -> tuple[str, list[Part]]:
    """'The cat is on the left of the picture.': the object with the most pixels, by the middle of its mask."""
    masks = item.masks()
    areas = {label: masks[list(regions)].any(axis=0) for label, regions in _groups(item).items()}
    label = max(areas, key=lambda one: int(areas[one].sum()))
    regions, columns = _groups(item)[label], np.nonzero(areas[label])[1]
    if len(columns) == 0:
        raise InputError(f"item {item.id!r} has no pixel of {label!r}")
    side = ("left", "middle", "right")[int(3 * (columns.mean() + 0.5) / masks.shape[2])]
    place: list[Part] = [(" is ", ()), ("in" if side == "middle" else "on", ()), (" the ", ()), (side, regions)]
    return f"Where is the {label}?", [("The ", ()), (label, regions), *place, (" of the picture.", ())]


_KINDS: dict[str, Callable[[Item], tuple[str, list[Part]]]] = {"what": _what, "whether": _whether, "where": _where}


def _groups(item: Item) -> dict[str, tuple[int, ...]]:
    """The regions of each name, in the order of the first."""
    labels = [region.label for region in item.regions]
    return {
        label: tuple(index for index, other in enumerate(labels) if other == label) for label in dict.fromkeys(labels)
    }


def _article(label: str) -> str:
    return "an" if label[:1].lower() in "aeiou" else "a"


def _text(parts: list[Part]) -> str:
    return "".join(text for text, _ in parts)


def _phrases(parts: list[Part]) -> tuple[Phrase, ...]:
    stops = np.cumsum([len(text) for text, _ in parts]).tolist()
    return tuple(
        Phrase(stop - len(text), stop, regions) for stop, (text, regions) in zip(stops, parts, strict=True) if regions
    )
