"""ImageNet (ILSVRC 2012), validation: the folders of Kaggle, a folder for each class, or the devkit of the authors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dexar_fast.data import content, files, pictures, records
from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Box, Item, Region
from dexar_fast.data.libraries import library
from dexar_fast.errors import InputError, reason

Names = dict[str, tuple[str, ...]]  # what a class (synset) is called, the usual name first
SUFFIX = ".JPEG"


def read(root: Path) -> DataSet:
    """References are the names of the class, or its WordNet id where no file tells them. Nothing is asked.

    Args:
        root: one of three layouts. Kaggle: LOC_val_solution.csv, LOC_synset_mapping.txt and ILSVRC/Data/CLS-LOC/val;
            boxes are regions. Folders: val/n01440764/*.JPEG, with or without LOC_synset_mapping.txt beside val. Devkit:
            val/*.JPEG and ILSVRC2012_devkit_t12/data; its meta.mat needs scipy.
    Raises:
        InputError: what is missing.
        LibraryError: scipy is not installed.
    """
    if (root / "LOC_val_solution.csv").exists():
        return _kaggle(root)
    pictured = files.first("imagenet", (root / "val", root))
    if (root / "ILSVRC2012_devkit_t12").exists():
        return _devkit(root, pictured)
    paths = sorted(pictured.glob(f"n*/*{SUFFIX}"))
    if not paths:
        raise InputError(
            f"imagenet: {pictured} holds no n01440764/*{SUFFIX}, and {root} no LOC_val_solution.csv or devkit"
        )
    named = root / "LOC_synset_mapping.txt"
    make = partial(_of_folder, _names(named))
    return DataSet("imagenet", paths, make, lambda path: path.stem, partial(content.of_files, (named,)))


def _of_folder(names: Names, name: str, path: Path) -> Item:
    return Item(name, path, references=_called(names, path.parent.name))


def _kaggle(root: Path) -> DataSet:
    pictured, named = root / "ILSVRC" / "Data" / "CLS-LOC" / "val", root / "LOC_synset_mapping.txt"
    files.present("imagenet", pictured, named)
    rows = files.table(root / "LOC_val_solution.csv", ("ImageId", "PredictionString"))
    make = partial(_of_kaggle, pictured, _names(named))
    return DataSet("imagenet", rows, make, _image_id, partial(content.of_files, (named,)))


def _image_id(row: dict[str, str]) -> str:
    return row["ImageId"]


def _of_kaggle(pictured: Path, names: Names, name: str, row: dict[str, str]) -> Item:
    said = row["PredictionString"].split()
    regions = [Region(_called(names, said[at])[0], _box(said[at + 1 : at + 5])) for at in range(0, len(said), 5)]
    if not regions:
        raise InputError(f"imagenet: item {name!r} has no class")
    return Item(
        name,
        pictures.at(pictured / f"{name}{SUFFIX}"),
        references=_called(names, said[0]),
        regions=tuple(regions),
    )


def _box(numbers: Sequence[str]) -> Box:
    """Kaggle counts the last pixel of a box as part of it."""
    left, top, right, bottom = map(float, numbers)
    return left, top, right + 1, bottom + 1


def _devkit(root: Path, pictured: Path) -> DataSet:
    data = root / "ILSVRC2012_devkit_t12" / "data"
    truth, meta = data / "ILSVRC2012_validation_ground_truth.txt", data / "meta.mat"
    files.present("imagenet", truth, meta)
    numbered = list(enumerate(files.lines(truth), start=1))
    make = partial(_of_devkit, pictured, _meta(meta))
    return DataSet("imagenet", numbered, make, _number, partial(content.of_files, (meta,)))


def _number(record: tuple[int, str]) -> str:
    return f"ILSVRC2012_val_{record[0]:08d}"


def _of_devkit(pictured: Path, names: dict[int, tuple[str, ...]], name: str, record: tuple[int, str]) -> Item:
    return Item(name, pictures.at(pictured / f"{name}{SUFFIX}"), references=records.of(names, "class", int(record[1])))


def _meta(path: Path) -> dict[int, tuple[str, ...]]:
    """The names of each class by the number that the ground truth gives it."""
    module = library("scipy.io", "meta.mat of ImageNet's devkit")
    try:
        synsets = module.loadmat(path, squeeze_me=True)["synsets"]
        return {int(one["ILSVRC2012_ID"]): _split(str(one["words"])) for one in synsets}
    except Exception as error:  # a damaged file raises any kind of error
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def _names(path: Path) -> Names:
    """From lines such as 'n01440764 tench, Tinca tinca'; none without the file."""
    rows = [line.partition(" ") for line in files.lines(path)] if path.exists() else []
    return {wordnet: _split(words) for wordnet, _, words in rows}


def _split(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(","))


def _called(names: Names, wordnet: str) -> tuple[str, ...]:
    return names.get(wordnet, (wordnet,))
