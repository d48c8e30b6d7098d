"""EAGLE's lists: answers that its models gave, as token ids, so that they are explained without being generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dexar_fast.data import coco_masks, files, pictures
from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item, Region
from dexar_fast.errors import InputError

Record = Mapping[str, Any]
_PICTURE = ("image_path", "image_name", "image_filename")  # of captions and objects, of RePOPE, of MMVP


def read(root: Path, images: str | Path) -> DataSet:
    """The answer of the list's model, its token ids, those of the prompt before it, and the targets.

    Captions and MMVP: every token of the answer is a target, end of turn included. Objects: one token, the name of the
    region. RePOPE: the first token, for which the opposite word is scored; the label is the reference. The words of the
    prompt are not stored but in its ids, but for RePOPE's and MMVP's question.

    Args:
        root: the list, such as LLaVA-1_5-7B-coco-caption.json, coco_single_target_once_llava-1_5-7B.json,
            LLaVA-1_5-7B-RePOPE-FP.json or LLaVA-1_5-7B-MMVP-VQA.json.
        images: the pictures that it names: of COCO val2017, COCO val2014, or "MMVP Images".
    Raises:
        InputError: what is missing, or no JSON.
    """
    folder = Path(images)
    files.present("eagle", root, folder)
    return DataSet("eagle", files.json_of(root, list), partial(_item, folder), _stem)


def _stem(record: Record) -> str:
    """What EAGLE calls the files of an item."""
    stem = Path(_file(record)).stem
    return f"{stem}_{record['id']}" if "id" in record else stem


def _file(record: Record) -> str:
    for key in _PICTURE:
        if key in record:
            return str(record[key])
    raise InputError(f"it names no picture: {' or '.join(_PICTURE)} is due")


def _item(folder: Path, name: str, record: Record) -> Item:
    prompt, answer = _apart(name, record)
    return Item(
        name,
        pictures.at(folder / _file(record)),
        record.get("question"),
        record["generate_sentence"],
        references=_references(record),
        answer_ids=answer,
        prompt_ids=prompt,
        targets=_targets(name, record, answer),
        regions=(_region(record),) if "location" in record else (),
    )


def _apart(name: str, record: Record) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the prompt and of the answer, from those of both: the answer has as many as there are words."""
    ids = record["generated_ids"]
    ids = tuple(int(one) for one in (ids[0] if isinstance(ids[0], Sequence) else ids))
    length = len(record["output_word_id"] if "output_word_id" in record else record["words"])
    if not 0 < length < len(ids):
        raise InputError(
            f"eagle: item {name!r} has {length} words of an answer and {len(ids)} ids of prompt and answer"
        )
    return ids[:-length], ids[-length:]


def _targets(name: str, record: Record, answer: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if "target_generated_index" in record:
        places, said = [record["target_generated_index"]], [record["target_generated_id"]]
    else:
        places, said = record["selected_interpretation_token_id"], record["selected_interpretation_token_word_id"]
    if [answer[place] for place in places] != said:
        raise InputError(f"eagle: item {name!r} chooses ids that its answer does not hold at these places")
    return tuple(zip(places, record.get("counter_word_id", said), strict=True))


def _references(record: Record) -> tuple[str, ...]:
    """A label, the right option of MMVP, or the captions of people."""
    if "label" in record:
        return (record["label"],)
    if "options" in record:
        return (record["options"][ord(record["answer"]) - ord("a")],)
    said = record.get("gt_caption", ())
    return (said,) if isinstance(said, str) else tuple(said)


def _region(record: Record) -> Region:
    left, top, right, bottom = record["location"]
    return Region(record["select_category"], (left, top, right, bottom), coco_masks.outline(record["segmentation"]))
