"""Miniature data sets: pictures and annotations that tests write in published layouts, and what is broken in them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dexar_fast.data import DataSet, Item

HEIGHT, WIDTH = 9, 13


def picture(path: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """A picture of noise, in the format that the name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def damaged(path: Path) -> Path:
    """A picture that ends in its middle."""
    picture(path, 64, 64)
    path.write_bytes(path.read_bytes()[:200])
    return path


def document(path: Path, content: Any) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def lines(path: Path, *rows: Any) -> Path:
    """A file of JSON lines; a text stands as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def whole(data: DataSet, **broken: str) -> dict[str, Item]:
    """The items without an error, by id. All of `broken`, and no others, have errors that match."""
    return whole_but(data, broken)


def whole_but(data: DataSet, broken: Mapping[str, str]) -> dict[str, Item]:
    """`whole`, for ids that are no names of Python."""
    items = [item.checked() for item in data]
    assert [item.id for item in items] == data.ids and len(set(data.ids)) == len(data)
    errors = {item.id: str(item.error) for item in items if item.error is not None}
    assert errors.keys() == broken.keys(), errors
    for name, pattern in broken.items():
        assert re.search(pattern, errors[name]), errors[name]
    return {item.id: item for item in items if item.error is None}


def box_mask(left: int, top: int, right: int, bottom: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """bool: the pixels of a box, written one by one."""
    return np.array([[left <= x < right and top <= y < bottom for x in range(width)] for y in range(height)])


def polygon(left: float, top: float, right: float, bottom: float) -> list[float]:
    """A box as COCO's polygon."""
    return [left, top, right, top, right, bottom, left, bottom]


def runs(mask: np.ndarray) -> list[int]:
    """COCO's plain runs of a mask, counted pixel by pixel."""
    lengths, value = [0], False
    for pixel in mask.T.ravel():
        if bool(pixel) != value:
            lengths.append(0)
            value = not value
        lengths[-1] += 1
    return lengths


def compressed(lengths: list[int]) -> str:
    """COCO's compressed runs."""
    text = ""
    for index, length in enumerate(lengths):
        number = length - (lengths[index - 2] if index > 2 else 0)
        while True:
            low, number = number & 31, number >> 5
            ended = number == (-1 if low & 16 else 0)
            text += chr(low + (0 if ended else 32) + 48)
            if ended:
                break
    return text
