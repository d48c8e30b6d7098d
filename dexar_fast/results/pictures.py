"""Images as bytes in a file: the PNG or JPEG that one was read from, or else a PNG that gives its pixels again."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dexar_fast.errors import FileError
from dexar_fast.vision import originals
from dexar_fast.vision.images import upright
from dexar_fast.vision.maps import bands

SIZES = "image_sizes"
MOST_PIXELS = 2**29  # of all images of a file together: bounds the memory that decoding them takes


def check_pixels(path: str, images: Sequence[Image.Image]) -> None:
    """Raises FileError for more than `MOST_PIXELS`; decodes nothing."""
    pixels = sum(image.width * image.height for image in images)
    if pixels > MOST_PIXELS:
        raise FileError(
            f"{path}: the images hold {pixels} pixels, a file at most {MOST_PIXELS}: explain smaller or fewer images"
        )


def sizes(images: Sequence[Image.Image]) -> dict[str, list[list[int]]]:
    """The metadata that stand for images which a file leaves out: boxes of grids are in their pixels."""
    return {SIZES: [[image.width, image.height] for image in images]} if images else {}


def encoded(images: Sequence[Image.Image]) -> dict[str, Tensor]:
    """`image_0`, `image_1`, ...: uint8 [bytes] of each."""
    return {f"image_{i}": _encode(image) for i, image in enumerate(images)}


def decoded(path: str, files: Sequence[Tensor]) -> tuple[Image.Image, ...]:
    """The images; their sizes are read first, since a small file may unfold to any size."""
    streams = [io.BytesIO(data.numpy().tobytes()) for data in files]
    opened = [Image.open(stream, formats=originals.FORMATS) for stream in streams]
    check_pixels(path, opened)
    return tuple(originals.keep(_copy(image), image, stream) for image, stream in zip(opened, streams, strict=True))


def _copy(opened: Image.Image) -> Image.Image:
    found = upright(opened)
    return found.copy() if found is opened else found


def _encode(image: Image.Image) -> Tensor:
    stream = io.BytesIO()
    content = originals.kept(image)
    if content is not None and _holds(content, image):
        stream.write(content)
    else:
        image.save(stream, format="PNG")
    return torch.from_numpy(np.frombuffer(stream.getbuffer(), np.uint8))


def _holds(content: bytes, image: Image.Image) -> bool:
    """Whether a file gives the pixels of an image: it may have been drawn on, or cut, since it was read."""
    with Image.open(io.BytesIO(content), formats=originals.FORMATS) as opened:
        found = upright(opened)
        boxes = [(0, rows.start, image.width, rows.stop) for rows in bands(image.height, image.width)]
        same = (found.crop(box).tobytes() == image.crop(box).tobytes() for box in boxes)
        return found.size == image.size and all(same)
