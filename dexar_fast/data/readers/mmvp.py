"""MMVP: pairs of pictures that CLIP takes for alike, a question with two options for each."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from dexar_fast.data import files, pictures
from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item
from dexar_fast.errors import InputError

COLUMNS = ("Question", "Options", "Correct Answer")
_OPTION = re.compile(r"(\([a-z]\))\s*(.*?)\s*(?=\([a-z]\)|$)")


def read(root: Path) -> DataSet:
    """The question names both options, as in the authors' script. References: the option in words, and its letter.

    Args:
        root: holds Questions.csv and "MMVP Images"/1.jpg, ...: the picture of a question has the number of its row.
    Raises:
        InputError: what is missing.
    """
    folder = root / "MMVP Images"
    files.present("mmvp", root / "Questions.csv", folder)
    rows = list(enumerate(files.table(root / "Questions.csv", COLUMNS), start=1))
    return DataSet("mmvp", rows, partial(_item, folder), _number)


def _number(record: tuple[int, dict[str, str]]) -> int:
    return record[0]


def _item(folder: Path, name: str, record: tuple[int, dict[str, str]]) -> Item:
    question, options, letter = (record[1][column].strip() for column in COLUMNS)
    said = dict(_OPTION.findall(options))
    if letter not in said:
        raise InputError(f"mmvp: row {name} answers {letter!r}, which is none of its options {options!r}")
    return Item(name, pictures.at(folder / f"{name}.jpg"), f"{question} {options}", references=(said[letter], letter))
