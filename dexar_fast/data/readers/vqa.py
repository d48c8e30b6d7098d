"""VQAv2: questions, ten answers each, and the pictures of COCO 2014."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dexar_fast.data import content, files, pictures, records
from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item


def read(root: Path, split: str = "val2014") -> DataSet:
    """References are the answer that most people gave, then the others.

    Args:
        root: holds v2_OpenEndedQuestions_mscoco_{split}_questions.json, v2_mscoco_{split}_annotations.json and the
            pictures in {split}/.
        split: val2014 or train2014.
    Raises:
        InputError: what is missing, or no JSON.
    """
    asked = root / f"v2_OpenEndedQuestions_mscoco_{split}_questions.json"
    answered = root / f"v2_mscoco_{split}_annotations.json"
    files.present("vqav2", asked, answered, root / split)
    questions = records.document("vqav2", asked, "questions")["questions"]
    annotations = records.document("vqav2", answered, "annotations")["annotations"]
    make = partial(_item, root / split, records.by(annotations, "question_id"))
    return DataSet("vqav2", questions, make, _question_id, partial(content.of_files, (answered,)))


def _question_id(record: Mapping[str, Any]) -> Any:
    return record["question_id"]


def _item(folder: Path, answers: dict[Any, Mapping[str, Any]], name: str, record: Mapping[str, Any]) -> Item:
    annotation = records.of(answers, "answer to question", record["question_id"])
    said = [annotation["multiple_choice_answer"], *(one["answer"] for one in annotation["answers"])]
    path = pictures.at(folder / f"COCO_{folder.name}_{record['image_id']:012d}.jpg")
    return Item(name, path, record["question"], references=tuple(dict.fromkeys(said)))
