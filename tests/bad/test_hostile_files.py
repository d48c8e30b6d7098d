"""Files made to harm whoever loads them: refused within bounds of time and memory, and nothing else is touched.

Each is loaded by a process of its own, which a runaway load could not take down with it.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_explanations import make
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from dexar_fast import Explanation, FileError
from dexar_fast.results import pictures, storage
from dexar_fast.results.pictures import MOST_PIXELS

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
SECONDS, MEBIBYTES = 10, 300  # for one file
LOAD = """
import json, sys, time
from pathlib import Path
from dexar_fast import Explanation
from dexar_fast.errors import DexarError
def peak():  # in MiB; getrusage's would begin at that of the process that started this one
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
Explanation.load(sys.argv[1])  # what a good one takes is not counted
for path in sys.argv[2:]:
    before, start = peak(), time.monotonic()
    try:
        Explanation.load(path)
        outcome = "loaded"
    except DexarError as error:
        outcome = f"{type(error).__name__}: {error}"
    print(json.dumps([outcome, time.monotonic() - start, peak() - before]), flush=True)
"""

Header = dict[str, Any]
Change = Callable[[Header, bytes], tuple[Header, bytes]]


def assembled(header: bytes, data: bytes, length: int | None = None) -> bytes:
    """The safetensors format: the header's length in 8 bytes, the header in JSON, the tensors."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def taken_apart(content: bytes) -> tuple[Header, bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def changed(content: bytes, change: Change) -> bytes:
    header, data = change(*taken_apart(content))
    return assembled(json.dumps(header).encode(), data)


def entry(name: str, **changes: Any) -> Change:
    return lambda header, data: (header | {name: header[name] | changes}, data)


def document(**changes: Any) -> Change:
    def change(header: Header, data: bytes) -> tuple[Header, bytes]:
        inner = json.loads(header["__metadata__"]["dexar_fast"]) | changes
        return header | {"__metadata__": {"dexar_fast": json.dumps(inner)}}, data

    return change


def renamed(old: str, new: str) -> Change:
    return lambda header, data: ({new if name == old else name: value for name, value in header.items()}, data)


def one_more(name: str) -> Change:
    return lambda header, data: (
        header | {name: {"dtype": "U8", "shape": [4], "data_offsets": [len(data), len(data) + 4]}}, data + b"evil"
    )  # fmt: skip


def huge_tensor(header: Header, data: bytes) -> tuple[Header, bytes]:
    """A tensor of an exbibyte that the file does not hold."""
    return entry("token_maps", shape=[2**30, 2**30], data_offsets=[0, 2**60])(header, data)


def overlapping(header: Header, data: bytes) -> tuple[Header, bytes]:
    return entry("unfiltered_token_maps", data_offsets=header["token_maps"]["data_offsets"])(header, data)


def over_images(frames: int) -> Change:
    grid = {"image": 0, "start": 0, "rows": 3, "columns": 4, "box": None, "frames": frames}

    def change(header: Header, data: bytes) -> tuple[Header, bytes]:
        first = header.pop("image_0")["data_offsets"][0]
        return document(grids=[grid], images=0)(header, data[:first])

    return change


def bomb(side: int, rows: int | None = None) -> bytes:
    """A PNG of a few hundred kilobytes that unfolds to side x side pixels; or one that holds but `rows` of them."""
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(1 + 3 * side)) for _ in range(side if rows is None else rows))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", pixels + packer.flush()),
        (b"IEND", b""),
    ]
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg_bomb(side: int) -> bytes:
    """A JPEG of a few hundred bytes that says it holds side x side pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, format="JPEG")
    content = stream.getvalue()
    sizes = content.index(b"\xff\xc0") + 5  # behind the marker, a length and the bits of a sample
    return content[:sizes] + struct.pack(">HH", side, side) + content[sizes + 4 :]


def with_pictures(good: Path, *pngs: bytes) -> bytes:
    with safe_open(good, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    for number, png in enumerate(pngs):
        tensors[f"image_{number}"] = torch.from_numpy(np.frombuffer(bytearray(png), np.uint8))
    save_file(tensors, good.with_name("pictured"), metadata)
    return changed(good.with_name("pictured").read_bytes(), document(images=len(pngs)))


HEADERS: dict[str, bytes] = {
    "empty": b"",
    "shorter than its length field": b"\x10\x00",
    "header of 2^64 bytes": assembled(b"{}", b"", 2**64 - 1),
    "header of 2^63 bytes": assembled(b"{}", b"", 2**63),
    "header of 99 MB that the file does not hold": assembled(b"{}", b"", 99_000_000),
    "header of nothing but brackets": assembled(b"[" * 5_000_000, b""),
    "header of 30 MB of blanks": assembled(b" " * 30_000_000 + b"{}", b""),
    "header of 400,000 tensors": assembled(
        json.dumps({str(i): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(400_000)}).encode(),
        b"",
    ),
    "header that is no JSON": assembled(b"\x80\x04\x95 a pickle?", b""),
    "a pickle": b"\x80\x04cposix\nsystem\n(S'touch evil'\ntR.",
}
CHANGES: dict[str, Change] = {
    "tensor larger than any memory": huge_tensor,
    "negative offsets": entry("token_maps", data_offsets=[-8, 8]),
    "offsets beyond the file": entry("token_maps", data_offsets=[10**12, 10**12 + 144]),
    "offsets in the wrong order": entry("token_maps", data_offsets=[144, 0]),
    "tensors that overlap": overlapping,
    "shape that overflows": entry("token_maps", shape=[2**63, 2**63]),
    "shape of another size": entry("token_maps", shape=[3, 11]),
    "unknown type": entry("token_maps", dtype="EVIL"),
    "path as a name": renamed("token_maps", "../../../../tmp/evil"),
    "path as the name of one tensor more": one_more("/etc/passwd"),
    "image number that is a path": renamed("image_0", "image_../0"),
    "more images than tensors": document(images=10**18),
    "images less than none": document(images=-1),
    "images counted in fractions": document(images=1.5),
    "grid of 10^18 cells": document(grids=[{"image": 0, "start": 0, "rows": 10**9, "columns": 10**9, "box": None}]),
    "grid over 10^18 images": over_images(10**18),
    "version of 4,000 digits": document(format_version=int("9" * 4000)),
}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    make().save(tmp_path / "good")
    return tmp_path / "good"


def loaded(good: Path, files: dict[str, bytes]) -> Iterator[tuple[str, str, float, float]]:
    """(name, outcome, seconds, MiB) of each file, loaded in a process of its own; nothing else may appear."""
    folder = good.parent / "hostile"
    folder.mkdir()
    paths = [folder / str(number) for number in range(len(files))]
    for path, content in zip(paths, files.values(), strict=True):
        path.write_bytes(content)
    command = [sys.executable, "-c", LOAD, str(good), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(os.listdir(folder)) == sorted(path.name for path in paths)
    for name, line in zip(files, done.stdout.splitlines(), strict=True):
        yield name, *json.loads(line)


def test_hostile_files_are_refused_in_bounded_time_and_memory(good: Path) -> None:
    content = good.read_bytes()
    files = HEADERS | {name: changed(content, change) for name, change in CHANGES.items()}
    for name, outcome, seconds, grown in loaded(good, files):
        assert outcome.startswith("FileError"), (name, outcome)
        assert seconds < SECONDS and grown < MEBIBYTES, (name, seconds, grown)


def test_words_beyond_what_can_be_read_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="may hold 16777216 bytes"):
        make(metadata={"prompt": "a" * storage.MOST_HEADER}).save(tmp_path / "long")
    assert os.listdir(tmp_path) == []


def test_a_picture_that_unfolds_is_refused_before_it_does(good: Path) -> None:
    files = {"png": with_pictures(good, bomb(23_200)), "jpeg": with_pictures(good, jpeg_bomb(23_200))}
    for name, outcome, seconds, grown in loaded(good, files):
        assert outcome.startswith("FileError") and "pixels" in outcome, (name, outcome)
        assert seconds < SECONDS and grown < MEBIBYTES, (name, seconds, grown)


def test_pictures_that_unfold_together_are_refused_before_they_do(good: Path) -> None:
    """Pillow would open each of them; only together they are too much."""
    claims = {"png": bomb(12_200, rows=1), "jpeg": jpeg_bomb(12_200)}
    files = {name: with_pictures(good, *[claim] * 4) for name, claim in claims.items()}
    for name, outcome, seconds, grown in loaded(good, files):
        assert outcome.startswith("FileError"), (name, outcome)
        assert f"hold {4 * 12_200**2} pixels, a file at most {MOST_PIXELS}" in outcome, (name, outcome)
        assert seconds < SECONDS and grown < MEBIBYTES, (name, seconds, grown)


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_PIXELS", 60 * 40 - 1)
    with pytest.raises(FileError, match="the images hold 2400 pixels, a file at most 2399"):
        make().save(tmp_path / "large")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [lambda header, data: (header, data), over_images(2)])
def test_without_what_makes_them_hostile_they_load(good: Path, change: Change) -> None:
    good.write_bytes(changed(good.read_bytes(), change))
    assert len(Explanation.load(good)) == 3
