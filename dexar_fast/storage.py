"""The file of an explanation: safetensors, with everything that is not an array in one JSON document.

Layout, format 1. Tensors: the arrays of `Explanation` under their field names, and `image_0`, `image_1`, ...:
each image as the bytes of a PNG (lossless), uint8 [bytes]. Metadata key `dexar_fast`: a JSON object with
`format_version`, `tokens`, `grids`, `diagnostics`, `metadata` and `images` (how many there are).
"""

import io
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from dexar_fast.errors import FileError
from dexar_fast.fields import ARRAYS
from dexar_fast.geometry import Grid

if TYPE_CHECKING:
    from dexar_fast.explanation import Explanation

FORMAT_VERSION = 1
_KEY = "dexar_fast"
# What the decoders of JSON, PNG and safetensors raise on bytes that somebody damaged or made up.
_DECODING_ERRORS = (
    SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError,
    OverflowError, SyntaxError, Image.DecompressionBombError,
)  # fmt: skip


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file or none: a temporary file beside it takes the place of `path` once complete.

    Raises:
        FileError: the folder does not exist or cannot be written, or the disk is full.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileError(f"cannot write {target}: the folder {target.parent} does not exist; create it first")
    temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.write_bytes(data)
        os.replace(temporary, target)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write {target}: {error}; choose another path or free it") from error
    finally:
        temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], explanation: "Explanation") -> None:
    """Write the file of an explanation; FileError as in `write_atomically`."""
    tensors = {name: _standalone(getattr(explanation, name)) for name in ARRAYS}
    tensors |= {f"image_{i}": _to_png(image) for i, image in enumerate(explanation.images)}
    document = {
        "format_version": FORMAT_VERSION,
        "tokens": explanation.tokens,
        "grids": [asdict(grid) for grid in explanation.grids],
        "diagnostics": explanation.diagnostics,
        "metadata": explanation.metadata,
        "images": len(explanation.images),
    }
    write_atomically(path, to_safetensors(tensors, {_KEY: json.dumps(document, allow_nan=False)}))


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of the explanation in a file, decoded but not yet checked against each other.

    Raises:
        FileError: no such file, not an explanation, damaged, or written by a newer version.
    """
    path = os.fspath(path)
    if not Path(path).is_file():
        raise FileError(f"{path} is not a file: give the path that Explanation.save wrote")
    try:
        with safe_open(path, framework="pt") as file:
            document = _document(path, file.metadata() or {})
            fields: dict[str, Any] = {name: file.get_tensor(name).clone() for name in ARRAYS}
            images = [_from_png(file.get_tensor(f"image_{i}")) for i in range(document["images"])]
        fields |= {name: document[name] for name in ("tokens", "diagnostics", "metadata")}
        return fields | {"grids": _grids(document["grids"]), "images": tuple(images)}
    except FileError:
        raise
    except _DECODING_ERRORS as error:
        raise FileError(f"{path} is no explanation, or damaged ({error}): explain and save again") from error


def _document(path: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    document = json.loads(metadata[_KEY], parse_constant=_refuse_constant)
    version = document["format_version"]
    if version > FORMAT_VERSION:
        raise FileError(
            f"{path} was written by dexar_fast format {version}, this version reads up to {FORMAT_VERSION}: "
            "upgrade dexar_fast"
        )
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _grids(rows: list[dict[str, Any]]) -> tuple[Grid, ...]:
    return tuple(Grid(**row | {"box": tuple(row["box"]) if row["box"] is not None else None}) for row in rows)


def _standalone(tensor: Tensor) -> Tensor:
    """A contiguous copy: safetensors refuses tensors that share memory."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _to_png(image: Image.Image) -> Tensor:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return torch.from_numpy(np.frombuffer(bytearray(buffer.getbuffer()), np.uint8))


def _from_png(data: Tensor) -> Image.Image:
    with Image.open(io.BytesIO(data.numpy().tobytes()), formats=["PNG"]) as image:
        return image.copy()
