"""The file of an explanation: safetensors, with everything that is not an array in one JSON document.

Layout, format 1. Tensors: the arrays of `Explanation` under their field names, and `image_0`, `image_1`, ...: each
image as uint8 [bytes] of the PNG or JPEG that it was read from, where this gives its pixels again once it is turned
upright by its EXIF; else of a PNG. Metadata key `dexar_fast`: a JSON object with `format_version`, `tokens`, `grids`,
`diagnostics`, `metadata` and `images` (how many there are).
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from dexar_fast.errors import FileError, cause
from dexar_fast.results import pictures
from dexar_fast.results.schema import ARRAYS, Result
from dexar_fast.vision.grid import Grid

FORMAT_VERSION = 1
LENGTH_BYTES = 8  # at the start of a safetensors file: the length of its header
MOST_HEADER = 2**24  # bytes: bounds the memory that the header takes once it is read
KEY = "dexar_fast"
# What the decoders of JSON, PNG, JPEG and safetensors raise on damaged or made-up bytes.
DECODING_ERRORS = (
    SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError,
    OverflowError, SyntaxError, Image.DecompressionBombError, RuntimeError, MemoryError,
)  # fmt: skip


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file or none: a temporary file beside it takes the place of `path` once complete.

    Raises:
        FileError: no path, the folder does not exist or cannot be written, or the disk is full.
    """
    target = path_of(path)
    if not os.fspath(path):  # Path takes it for the current folder
        raise FileError("the path is empty: pass the name of a file")
    if not os.path.isdir(target.parent):
        raise FileError(f"cannot write {target}: the folder {target.parent} does not exist; create it first")
    temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.write_bytes(data)
        os.replace(temporary, target)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write {target}: {cause(error)}; choose another path or free it") from error
    finally:
        with suppress(OSError):  # a read-only file system refuses to delete even what is not there
            temporary.unlink()


def is_folder(path: Any) -> bool:
    """Whether a path names a folder. Raises FileError if it is no path."""
    return os.path.isdir(path_of(path))


def path_of(path: Any) -> Path:
    """As a Path. Raises FileError if it is no path."""
    try:
        return Path(path)
    except TypeError:
        raise FileError(f"{path!r} is no path: pass the name of a file") from None


def write(path: str | os.PathLike[str], explanation: Result, *, images: bool) -> None:
    """Write the file of an explanation, with or without its images.

    Raises:
        FileError: as in `write_atomically`, images beyond `pictures.MOST_PIXELS` together, or a header beyond
            `MOST_HEADER`.
    """
    shown = explanation.images if images else ()
    pictures.check_pixels(str(path), shown)
    tensors = {name: standalone(getattr(explanation, name)) for name in ARRAYS} | pictures.encoded(shown)
    document = {
        "format_version": FORMAT_VERSION,
        "tokens": explanation.tokens,
        "grids": [asdict(grid) for grid in explanation.grids],
        "diagnostics": explanation.diagnostics,
        "metadata": explanation.metadata,
        "images": len(shown),
    }
    data = to_safetensors(tensors, {KEY: json.dumps(document, allow_nan=False)})
    _check_header(str(path), data[:LENGTH_BYTES])
    write_atomically(path, data)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of the explanation in a file, decoded but not yet checked against each other.

    Raises:
        FileError: no such file, not an explanation, damaged, or written by a newer version.
    """
    path = str(path_of(path))
    if not os.path.isfile(path):
        raise FileError(f"{path} is not a file: give the path that Explanation.save wrote")
    try:
        with opened(path) as file:
            document = document_of(path, (file.metadata() or {})[KEY])
            names = [f"image_{i}" for i in range(count(document["images"], most=len(file.keys())))]
            if set(file.keys()) != {*ARRAYS, *names}:
                raise FileError(f"{path} holds tensors that no explanation has, or lacks some: explain and save again")
            fields: dict[str, Any] = {name: file.get_tensor(name).clone() for name in ARRAYS}
            images = pictures.decoded(path, [file.get_tensor(name) for name in names])
        fields |= {name: document[name] for name in ("tokens", "diagnostics", "metadata")}
        return fields | {"grids": grids_of(document["grids"]), "images": images}
    except FileError:
        raise
    except DECODING_ERRORS as error:
        raise FileError(f"{path} is no explanation, or damaged ({error}): explain and save again") from error


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """A safetensors file, to read. Raises FileError for a header beyond `MOST_HEADER`, or if it is no file."""
    if not os.path.isfile(path):  # opening a named pipe would wait for a writer
        raise FileError(f"{path} is not a file: it is missing, or the folder is damaged; explain again")
    with open(path, "rb") as file:
        _check_header(path, file.read(LENGTH_BYTES))
    with safe_open(path, framework="pt") as tensors:
        yield tensors


def document_of(path: str, text: str) -> dict[str, Any]:
    """The JSON document of a file; strict. Raises FileError for a newer version, ValueError if it is not JSON."""
    document = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates)
    version = count(document["format_version"], most=None)
    if version > FORMAT_VERSION:
        raise FileError(
            f"{path} was written by dexar_fast format {version}, this version reads up to {FORMAT_VERSION}: "
            "upgrade dexar_fast"
        )
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one JSON object")
    return found


def count(value: Any, most: int | None) -> int:
    if type(value) is not int or value < 0 or (most is not None and value > most):
        raise ValueError(f"{value!r} is no count")
    return value


def _check_header(path: str, length: bytes) -> None:
    if int.from_bytes(length, "little") > MOST_HEADER:
        raise FileError(f"{path}: tokens, diagnostics and metadata may hold {MOST_HEADER} bytes, these hold more")


def grids_of(rows: list[dict[str, Any]]) -> tuple[Grid, ...]:
    return tuple(Grid(**row | {"box": tuple(row["box"]) if row["box"] is not None else None}) for row in rows)


def standalone(tensor: Tensor) -> Tensor:
    """A contiguous copy: safetensors refuses tensors that share memory."""
    return tensor.clone(memory_format=torch.contiguous_format)
