"""The file of an explanation: safetensors, with everything that is not an array in one JSON document.

Layout, format 1; 2 with regions or text relevance. Tensors: the arrays of `Explanation` under their field names; the
labels of regions as `regions_0`, ... by their place among the grids; `text_positions`, `text_maps` and
`unfiltered_text_maps` of a text relevance; and `image_0`, `image_1`, ...: each image as uint8 [bytes] of the PNG or
JPEG that it was read from, where this gives its pixels again once it is turned upright by its EXIF; else of a PNG.
Metadata key `dexar_fast`: a JSON object with `format_version`, `tokens`, `grids`, `diagnostics`, `metadata`, `images`
(how many there are), and `text_tokens` of a text relevance.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from dexar_fast.errors import FileError
from dexar_fast.files import path_of, write_atomically
from dexar_fast.results import cells, pictures
from dexar_fast.results.schema import ARRAYS, Result
from dexar_fast.results.text_relevance import TextRelevance

FORMAT_VERSION = 2
PLAIN = 1  # the version of files without regions and text relevance: older releases read them
TEXT = {"text_positions": "positions", "text_maps": "maps", "unfiltered_text_maps": "unfiltered_maps"}
LENGTH_BYTES = 8  # at the start of a safetensors file: the length of its header
MOST_HEADER = 2**24  # bytes: bounds the memory that the header takes once it is read
KEY = "dexar_fast"
# What the decoders of JSON, PNG, JPEG and safetensors raise on damaged or made-up bytes.
DECODING_ERRORS = (
    SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError,
    OverflowError, SyntaxError, Image.DecompressionBombError, RuntimeError, MemoryError,
)  # fmt: skip


def is_folder(path: Any) -> bool:
    """Whether a path names a folder. Raises FileError if it is no path."""
    return os.path.isdir(path_of(path))


def write(path: str | os.PathLike[str], explanation: Result, *, images: bool) -> None:
    """Write the file of an explanation, with or without its images.

    Raises:
        FileError: as in `write_atomically`, images beyond `pictures.MOST_PIXELS` together, or a header beyond
            `MOST_HEADER`.
    """
    shown = explanation.images if images else ()
    pictures.check_pixels(str(path), shown)
    text = explanation.text_relevance
    further = dict(cells.labels_of(explanation.grids))
    if text is not None:
        further |= {name: getattr(text, field) for name, field in TEXT.items()}
    arrays = {name: getattr(explanation, name) for name in ARRAYS} | further
    tensors = {name: standalone(array) for name, array in arrays.items()} | pictures.encoded(shown)
    document = {
        "format_version": FORMAT_VERSION if further else PLAIN,
        "tokens": explanation.tokens,
        "grids": cells.rows_of(explanation.grids),
        "diagnostics": explanation.diagnostics,
        "metadata": explanation.metadata | ({} if images else pictures.sizes(explanation.images)),
        "images": len(shown),
    } | ({} if text is None else {"text_tokens": text.tokens})
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
            further = {*cells.names_in(document["grids"]), *(TEXT if "text_tokens" in document else ())}
            if set(file.keys()) != {*ARRAYS, *names, *further}:
                raise FileError(f"{path} holds tensors that no explanation has, or lacks some: explain and save again")
            fields: dict[str, Any] = {name: file.get_tensor(name).clone() for name in ARRAYS}
            grids = cells.cells_of(document["grids"], lambda name: file.get_tensor(name).clone())
            text = _text(file, document)
            images = pictures.decoded(path, [file.get_tensor(name) for name in names])
        fields |= {name: document[name] for name in ("tokens", "diagnostics", "metadata")}
        return fields | {"grids": grids, "text_relevance": text, "images": images}
    except FileError:
        raise
    except DECODING_ERRORS as error:
        raise FileError(f"{path} is no explanation, or damaged ({error}): explain and save again") from error


def _text(file: Any, document: dict[str, Any]) -> TextRelevance | None:
    if "text_tokens" not in document:
        return None
    arrays = {field: file.get_tensor(name).clone() for name, field in TEXT.items()}
    return TextRelevance(tokens=document["text_tokens"], **arrays)


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


def standalone(tensor: Tensor) -> Tensor:
    """A contiguous copy: safetensors refuses tensors that share memory."""
    return tensor.clone(memory_format=torch.contiguous_format)
