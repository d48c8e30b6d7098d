"""The files of EAGLE's own scripts: json/NAME.json with the curves, npy/NAME.npy with the regions in order."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexar_fast.errors import FileError, InputError, cause, reason
from dexar_fast.files import path_of, write_atomically
from dexar_fast.methods import knobs
from dexar_fast.methods.cut.labels import Labels, revealed_areas
from dexar_fast.methods.eagle.greedy.result import Curves
from dexar_fast.methods.eagle.greedy.scores import Weights
from dexar_fast.results.storage import DECODING_ERRORS

SCORES = ("insertion_score", "deletion_score", "smdl_score", "region_area")
WORDS = ("insertion_word_score", "deletion_word_score")
KNOWN = (*SCORES, *WORDS, "lambda1", "lambda2", "sub-region_number", "org_score", "baseline_score")
OPPOSITE = "_oppose"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Stored:
    """What the two files of a picture hold.

    Attributes:
        curves: of the search. Its regions count in the order of places: the files do not tell their numbers.
        labels: int32 [height, width], or [frames, height, width]: the place of each pixel's region.
        details: the other entries of the json: words, token ids, a question.
    """

    curves: Curves
    labels: Labels
    details: dict[str, Any] = field(default_factory=dict)


def write(folder: Any, name: str, curves: Curves, labels: Labels, details: Mapping[str, Any] | None = None) -> None:
    """Writes both files in the form that EAGLE's scripts read, each whole or not at all; makes their folders.

    Args:
        folder: theirs are called like "slico-1.0-1.0-division-number-64".
        name: of the picture, without its ending.
        labels: the region of each pixel, as the search counted them.
        details: plain JSON for further entries.
    Raises:
        InputError: a name that holds a separator of paths, or details that are no JSON.
        FileError: a folder or file that cannot be written.
    """
    put(folder, name, document_of(curves, labels), masks_of(curves, labels), details)


def put(folder: Any, name: str, document: dict[str, Any], array: np.ndarray, details: Any = None) -> None:
    """Writes json/NAME.json, a document and details beside it, and npy/NAME.npy. Raises as `write`."""
    text = json.dumps(document | _json(details or {}), indent=4)
    stored = io.BytesIO()
    np.save(stored, array)
    for path, data in zip(_paths(folder, name), (text.encode(), stored.getvalue()), strict=True):
        _make(path.parent)
        write_atomically(path, data)


def document_of(curves: Curves, labels: Labels) -> dict[str, Any]:
    """The entries of the json. For a search from both ends, smdl_score leaves out the lambdas, as theirs does."""
    series = {
        "insertion_score": curves.insertion.mean(-1),
        "deletion_score": curves.deletion.mean(-1),
        "region_area": revealed_areas(labels, curves.order),
        "insertion_word_score": curves.insertion,
        "deletion_word_score": curves.deletion,
    }
    front = len(curves.order) - 1 - curves.tail
    behind = {key + OPPOSITE: value[front:-1].flip(0) for key, value in series.items()} if curves.tail else {}
    series |= {"smdl_score": _stored_objective(curves), "org_score": curves.full, "baseline_score": curves.empty}
    weights = {"lambda1": curves.weights.insertion, "lambda2": curves.weights.deletion}
    lists = {key: value.tolist() for key, value in (series | behind).items()}
    return lists | weights | {"sub-region_number": len(curves.order)}


def _stored_objective(curves: Curves) -> Tensor:
    if not curves.tail:
        return curves.objective
    return curves.insertion.mean(-1).double() + 1 - curves.deletion.mean(-1).double()


def masks_of(curves: Curves, labels: Labels) -> np.ndarray:
    """int64 [N, height, width, 1], or with frames before the height: one region a row, in order."""
    places = curves.order.numpy().reshape(-1, *[1] * labels.ndim)
    return (labels == places)[..., None].astype(np.int64)


def read(folder: Any, name: str) -> Stored:
    """Reads both files, written by `write` or by EAGLE's own scripts.

    Raises:
        InputError: a name that holds a separator of paths.
        FileError: a file is missing or damaged, or the two do not fit each other.
    """
    document_path, masks_path = _paths(folder, name)
    try:
        document = json.loads(_bytes(document_path))
        labels = _labels(_array(_bytes(masks_path)))
        curves = _curves(document)
    except FileError:
        raise
    except (*DECODING_ERRORS, TokenError) as error:
        raise FileError(f"{document_path} or {masks_path} is no result of EAGLE, or damaged: {error!r}") from error
    if labels.max() + 1 != len(curves.order):
        raise FileError(f"{masks_path} holds {labels.max() + 1} regions, {document_path} {len(curves.order)}")
    return Stored(curves, labels, {key: value for key, value in document.items() if not _is_known(key)})


def _curves(document: Any) -> Curves:
    insertion, deletion = (_floats(document, name, 2) for name in WORDS)
    objective = _floats(document, "smdl_score", 1)
    empty, full = (_floats(document, name, 1) for name in ("baseline_score", "org_score"))
    tail = len(document.get("insertion_score" + OPPOSITE, []))
    if not (
        insertion.shape == deletion.shape == (len(objective), len(empty))
        and len(empty) == len(full) > 0
        and tail < len(objective)
    ):
        raise ValueError("its lists differ in length")
    return Curves(
        order=torch.arange(len(objective)),
        insertion=insertion,
        deletion=deletion,
        objective=objective,
        empty=empty,
        full=full,
        weights=Weights(*(knobs.real(name, document[name]) for name in ("lambda1", "lambda2"))),
        tail=tail,
    )


def _floats(document: Any, name: str, dimensions: int) -> Tensor:
    values = torch.tensor(document[name], dtype=torch.float32)
    if values.ndim != dimensions or not values.isfinite().all():
        raise ValueError(f"{name} is no list of finite numbers")
    return values


def _array(data: bytes) -> np.ndarray:
    """Of an npy file. Its header is not believed: a size other than that of the data is refused before it is taken."""
    stream = io.BytesIO(data)
    shape, by_columns, dtype = HEADERS[np.lib.format.read_magic(stream)](stream)
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"its masks are not the {dtype} {list(shape)} of its header")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if by_columns else "C")


def _labels(masks: np.ndarray) -> Labels:
    if masks.ndim not in (4, 5) or masks.shape[-1] != 1 or masks.size == 0 or masks.dtype.kind not in "iub":
        raise ValueError(f"its masks are {masks.dtype} {list(masks.shape)}")
    inside = masks[..., 0] != 0
    if not (inside.sum(axis=0) == 1).all():
        raise ValueError("its masks are no partition of the picture")
    return inside.argmax(axis=0).astype(np.int32)


def _is_known(key: str) -> bool:
    return key.removesuffix(OPPOSITE) in KNOWN


def _json(details: Any) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(dict(details), allow_nan=False)))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"the details are no JSON: {reason(error)}") from error


def _paths(folder: Any, name: str) -> tuple[Path, Path]:
    if not isinstance(name, str) or not name or {*name} & {"/", "\\"}:
        raise InputError(f"the name must be that of a picture, without a folder, not {name!r}")
    return path_of(folder) / "json" / f"{name}.json", path_of(folder) / "npy" / f"{name}.npy"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {folder}: {cause(error)}") from error


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileError(f"{path} is not a file: give the folder that holds json/ and npy/, and the picture's name")
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}: {cause(error)}") from error
