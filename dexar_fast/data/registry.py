"""Data sets by name."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from numbers import Integral
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from dexar_fast.data import files
from dexar_fast.data.dataset import DataSet
from dexar_fast.errors import InputError

_READERS = {
    "coco-captions": "readers.coco.captions",
    "coco-instances": "readers.coco.instances",
    "datasets": "readers.hub.read",
    "eagle": "readers.eagle.read",
    "folder": "readers.tables.folder",
    "grandf": "readers.grandf.read",
    "imagenet": "readers.imagenet.read",
    "jsonl": "readers.tables.jsonl",
    "mmvp": "readers.mmvp.read",
    "parquet": "readers.tables.parquet",
    "pope": "readers.pope.read",
    "refcoco": "readers.refcoco.refcoco",
    "refcoco+": "readers.refcoco.refcoco_plus",
    "refcocog": "readers.refcoco.refcocog",
    "repope": "readers.pope.corrected",
    "shapes": "shapes.items.read",
    "voc": "readers.voc.read",
    "voc-qa": "qa.voc",
    "vqav2": "readers.vqa.read",
}
_SAID: dict[Any, str] = {Integral: "a whole number", str: "a text", Path: "a path", Mapping: "a mapping"}
_OPTION = re.compile(r",(?=\w+=)")  # a path and a JSON value may hold commas, too


def names() -> list[str]:
    """Every name that `read` knows."""
    return list(_READERS)


def read(name: str, root: Any = None, **options: Any) -> DataSet:
    """A data set by name: read("voc", "VOCdevkit/VOC2012", split="train"), read("shapes", count=100).

    Args:
        name: one of `names()`.
        root: where it lies; what each reader asks of it and its options stand in its docstring, which `help_of` gives.
    Raises:
        InputError: no such name or option, no root where one is due, or what the data set lacks as a whole.
        LibraryError: a library that the reader needs is not installed.
    """
    reader = _reader(name)
    given = {**options, **({} if root is None else {"root": root})}
    _check(name, inspect.signature(reader).parameters, given)
    _check_kinds(name, get_type_hints(reader), options)
    if isinstance(root, str) and name != "datasets":
        given["root"] = Path(root)
    found: DataSet = reader(**given)
    found.source = _source(name, root, options)
    return found


def _source(name: str, root: Any, options: Mapping[str, Any]) -> str:
    """NAME:ROOT,OPTION=VALUE,..., as `of` takes it; of a table in memory its fingerprint."""
    place = str(root) if isinstance(root, str | Path) else f"{type(root).__name__} {getattr(root, '_fingerprint', '')}"
    parts = [*([] if root is None else [place]), *(f"{option}={value}" for option, value in options.items())]
    return f"{name}:{','.join(parts)}" if parts else name


def of(text: str) -> DataSet:
    """A data set as a command line names it: a path, or NAME:ROOT,OPTION=VALUE,... with what the name takes.

    A folder holds pictures; a file is Parquet if it ends so, else JSON lines. "shapes:count=100",
    "voc:VOCdevkit/VOC2012,split=train". Values are JSON, or else text.

    Raises:
        As `read` does; InputError where there is neither such a path nor such a name.
    """
    if os.path.exists(text):
        return read(_kind(Path(text)), text)
    name, _, rest = text.partition(":")
    if name not in _READERS and (os.sep in name or "." in name):
        raise InputError(f"{text} does not exist: name a folder of pictures, a file, or one of {', '.join(_READERS)}")
    root, options = _split(rest)
    return read(name, root, **options)


def _kind(path: Path) -> str:
    if path.is_file() and files.named_as_picture(path):
        raise InputError(f"{path} is a single picture: name a folder of pictures, or a file that lists them")
    return "folder" if path.is_dir() else "parquet" if path.suffix.lower() == ".parquet" else "jsonl"


def _split(text: str) -> tuple[str | None, dict[str, Any]]:
    """The root, if there is one, and the options behind it."""
    first, *rest = _OPTION.split(text)
    root, options = (None, [first, *rest]) if re.match(r"\w+=", first) else (first or None, rest)
    return root, {name: _value(value) for name, _, value in (option.partition("=") for option in options)}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check(name: str, known: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> None:
    """Raises InputError for an option that a reader lacks, or needs and did not get."""
    unknown = [option for option in given if option not in known]
    if unknown:
        raise InputError(f"{name}: {unknown[0]!r} is no option of this data set: it has {', '.join(known)}")
    due = [option for option, one in known.items() if one.default is one.empty and option not in given]
    if due:
        raise InputError(f"{name}: {' and '.join(due)} must be given: see help_of({name!r})")


def _check_kinds(name: str, hints: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises InputError for an option that is of another kind than its reader takes."""
    for option, value in given.items():
        kinds = _kinds(hints[option])
        if not isinstance(value, kinds):
            said = " or ".join(_SAID.get(kind, kind.__name__) for kind in kinds if kind is not NoneType)
            raise InputError(f"{name}: {option} is {said}, not {value!r}")


def _kinds(hint: Any) -> tuple[type, ...]:
    """The classes that a hint names."""
    each = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return tuple(Integral if kind is int else get_origin(kind) or kind for kind in each)


def help_of(name: str) -> str:
    """What a reader says of its layout and its options. Raises InputError: no such name."""
    return inspect.getdoc(_reader(name)) or ""


def _reader(name: str) -> Any:
    if name not in _READERS:
        close = get_close_matches(str(name), _READERS, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"data set {name!r} is none of {', '.join(_READERS)}{hint}")
    module, _, function = _READERS[name].rpartition(".")
    return getattr(import_module(f"dexar_fast.data.{module}"), function)
