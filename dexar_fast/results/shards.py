"""A long answer on disk while it is explained: shards that are written once, and an index of the finished ones.

Layout of the folder, format 1. `00000.safetensors`, `00001.safetensors`, ... hold some tokens each: `token_ids` [C] and
the sums of the pass (`dexar_fast.attribution.sums.Attribution`), with their texts in the metadata. `start.safetensors`
holds `visual_positions` and the images, as in `dexar_fast.results.storage`. `index.json` says how many `shards` and
`tokens` are finished, and holds what else an `Explanation` needs that is no array; its `metadata` says whether the
answer is `complete`. It is replaced as a whole after each shard, so that a reader, at any time and after any end, finds
what was finished.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from dexar_fast import files
from dexar_fast.attribution.sums import Attribution
from dexar_fast.attribution.text_maps import TextMaps
from dexar_fast.errors import FileError
from dexar_fast.results import assembly, cells, pictures, storage
from dexar_fast.results.assembly import Chunk, ResultHeader

FORMAT_VERSION = storage.PLAIN
INDEX, START = "index.json", "start.safetensors"
Folder = str | os.PathLike[str]

SHARD_BYTES = 4 * 2**20
SHARD_SECONDS = 1.0  # what a killed run may lose, beyond the tokens in hand
_SUMS = ("visual_scores", "text_scores", "token_maps", "unfiltered_token_maps")


def free_folder(path: Folder) -> None:
    """Makes the folder if it does not exist.

    Raises:
        FileError: it holds an explanation or part of one, is a file, or cannot be made.
    """
    folder = files.path_of(path)
    if not os.fspath(path):  # Path takes it for the current folder
        raise FileError("the path is empty: pass the name of a folder")
    if any((folder / name).exists() for name in (INDEX, START, _name(0))):
        raise FileError(f"{folder} holds an explanation: choose another folder, or delete this one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot make the folder {folder}: {error}; choose another") from error


class Shards:
    """The folder of an answer that is being explained.

    Raises:
        FileError: as in `free_folder`, or it cannot be written.
    """

    def __init__(self, folder: Folder, header: ResultHeader) -> None:
        free_folder(folder)  # another explanation may have begun there since it was first looked at
        pictures.check_pixels(str(folder), header.images)
        self.folder = files.path_of(folder)
        self.finished = 0, 0  # shards, tokens
        self._header = header
        self._last = time.monotonic()
        self._waiting = 0  # bytes
        start = {"visual_positions": storage.standalone(header.visual)} | pictures.encoded(header.images)
        self._write(START, to_safetensors(start))
        self.index([], "", [])

    def is_due(self, chunk: Chunk) -> bool:
        """Whether this chunk, with those before it that are not on disk yet, is worth a shard."""
        self._waiting += sum(getattr(chunk.sums, name).nbytes for name in _SUMS)
        return self._waiting >= SHARD_BYTES or time.monotonic() - self._last >= SHARD_SECONDS

    def add(self, chunk: Chunk) -> None:
        """Writes one more shard; `index` makes it count."""
        arrays = {name: getattr(chunk.sums, name) for name in _SUMS} | {"token_ids": chunk.ids}
        if chunk.sums.range is not None:
            arrays["range"] = chunk.sums.range
        if chunk.sums.text is not None:
            arrays |= {name: getattr(chunk.sums.text, field) for name, field in storage.TEXT.items()}
        tensors = {name: storage.standalone(array) for name, array in arrays.items()}
        shards, tokens = self.finished
        self._write(_name(shards), to_safetensors(tensors, {storage.KEY: json.dumps({"tokens": chunk.tokens})}))
        self.finished = shards + 1, tokens + len(chunk.ids)  # at once, so that no interrupt comes between
        self._last, self._waiting = time.monotonic(), 0

    def index(self, winners: list[dict[str, Any]], unfinished: str, text_tokens: list[str]) -> None:
        """Writes what is finished; arguments as in `dexar_fast.results.assembly`."""
        document = {
            "format_version": FORMAT_VERSION,
            "shards": self.finished[0],
            "tokens": self.finished[1],
            "unfinished": unfinished,
            "text_winners": winners,
            "text_tokens": text_tokens,
            "grids": cells.rows_of(self._header.grids),
            "warnings": self._header.warnings,
            "metadata": self._header.metadata,
            "images": len(self._header.images),
        }
        self._write(INDEX, json.dumps(document, allow_nan=False).encode())

    def _write(self, name: str, data: bytes) -> None:
        files.write_atomically(self.folder / name, data)


def read(path: Folder) -> dict[str, Any]:
    """The fields of the explanation of a folder's finished tokens, decoded but not yet checked against each other.

    Raises:
        FileError: no such folder, nothing finished in it yet, damaged, or written by a newer version.
    """
    folder = files.path_of(path)
    if not (folder / INDEX).is_file():
        raise FileError(f"{folder} is not a file, and no folder that out= named: it has no {INDEX}")
    try:
        return _read(folder)
    except FileError:
        raise
    except storage.DECODING_ERRORS as error:
        raise FileError(f"{folder} is no explanation, or damaged ({error}): explain again") from error


def _read(folder: Path) -> dict[str, Any]:
    document = storage.document_of(str(folder), _index_text(folder / INDEX))
    chunks = [_read_shard(folder / _name(i)) for i in range(storage.count(document["shards"], most=None))]
    if not chunks:
        raise FileError(f"{folder}: no token is explained yet; try again later")
    chunk = assembly.whole(chunks, document["unfinished"])
    if len(chunk.tokens) != document["tokens"]:
        raise FileError(f"{folder} holds {len(chunk.tokens)} tokens and its index says {document['tokens']}: damaged")
    return assembly.fields(
        _read_header(folder, document), chunk, document["text_winners"], document.get("text_tokens", [])
    )


def _index_text(path: Path) -> str:
    if path.stat().st_size > storage.MOST_HEADER:
        raise FileError(f"{path}: an index may hold {storage.MOST_HEADER} bytes, this one holds more")
    return path.read_text()


def _read_header(folder: Path, document: dict[str, Any]) -> ResultHeader:
    with storage.opened(str(folder / START)) as file:
        names = [f"image_{i}" for i in range(storage.count(document["images"], most=len(file.keys())))]
        visual = file.get_tensor("visual_positions").clone()
        images = pictures.decoded(str(folder), [file.get_tensor(name) for name in names])
    return ResultHeader(
        visual=visual,
        grids=cells.cells_of(document["grids"], _no_regions),
        images=images,
        warnings=document["warnings"],
        metadata=document["metadata"],
    )


def _read_shard(path: Path) -> Chunk:
    with storage.opened(str(path)) as file:
        arrays = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        tokens = json.loads(file.metadata()[storage.KEY])["tokens"]
    sums = Attribution(
        **{name: arrays[name] for name in _SUMS},
        text_winners=torch.zeros(0, dtype=torch.long, device="cpu"),  # counted in the index
        range=arrays.get("range"),
        text=TextMaps(**{field: arrays[name] for name, field in storage.TEXT.items()})
        if "text_maps" in arrays
        else None,
    )
    return Chunk(arrays["token_ids"], tokens, sums)


def _no_regions(name: str) -> torch.Tensor:
    raise ValueError(f"{name}: a folder holds no regions")


def _name(shard: int) -> str:
    return f"{shard:05}.safetensors"
