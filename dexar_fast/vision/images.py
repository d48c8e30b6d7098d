"""Turns images as users hold them into upright RGB."""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dexar_fast.errors import ImageError
from dexar_fast.vision import originals

LONGEST_PATH = 4096  # as on Linux


@dataclass(frozen=True)
class Reading:
    """How to read an image: whether to turn it upright by its EXIF, and whether to put what is transparent on white."""

    upright: bool = True
    on_white: bool = True


USUAL = Reading()
_TURNED = range(2, 9)  # EXIF orientations other than upright


class Loaded(list[Image.Image]):
    """Images that `load_images` has read. It takes them as they are: a copy of a large photograph costs memory."""


def load_images(image: Any, reading: Reading = USUAL) -> Loaded:
    """A path, a PIL image, an array [height, width(, channels)], or a list of them, as RGB images, upright as a rule.

    Raises:
        ImageError: an image that is missing, unreadable, empty or of no known kind; the message names it.
    """
    if isinstance(image, Loaded):
        return image
    many = image if isinstance(image, Sequence) and not isinstance(image, str | bytes) else [image]
    if len(many) == 0:
        raise ImageError("no image: pass a path, a PIL image or an array")
    return Loaded(load_image(one, reading) for one in many)


def readings(image: Any) -> Iterator[list[Image.Image]]:
    """`load_images` in every way that a processor may have read them, the usual one first; no two are the same.

    Processors do not turn a PIL image upright, and some drop its transparency.
    """
    before: list[list[Image.Image]] = []
    for upright in (True, False):
        for on_white in (True, False):
            with suppress(ImageError):  # of a kind that Pillow does not turn into RGB in this way
                images = load_images(image, Reading(upright, on_white))
                if all(_content(images) != _content(others) for others in before):
                    yield images
                before.append(images)


def is_turned(image: Any) -> bool:
    """Whether any of the images does not lie upright."""
    return _content(load_images(image)) != _content(load_images(image, Reading(upright=False)))


def _content(images: list[Image.Image]) -> list[tuple[tuple[int, int], bytes]]:
    return [(image.size, image.tobytes()) for image in images]


def load_image(image: Any, reading: Reading = USUAL) -> Image.Image:
    """One image; see `load_images`."""
    if isinstance(image, str) and image.lower().startswith(("http://", "https://")):
        raise ImageError(f"{image} is on the web: download it first and pass the path of the file")
    if isinstance(image, str) and image.startswith("data:"):
        return _from_data(image, reading)
    if isinstance(image, str) and len(image) > LONGEST_PATH:
        raise ImageError(f"{image[:40]!r}... is too long for a path: pass base64 as 'data:image/png;base64,...'")
    if isinstance(image, str | os.PathLike):
        return _open(Path(os.fspath(image).removeprefix("file://")), reading)
    if isinstance(image, Image.Image):
        return _read(image, "the image", reading)
    if hasattr(image, "__array__"):
        return _from_array(_as_array(image), reading)
    raise ImageError(f"cannot read a {type(image).__name__} as an image: pass a path, a PIL image or an array")


def _from_data(uri: str, reading: Reading) -> Image.Image:
    """data:image/png;base64,..., as OpenAI's messages hold a picture."""
    head, _, body = uri.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError("it is not in base64")
        return _from_file(BytesIO(b64decode(body, validate=True)), "the image", reading)
    except ImageError:
        raise
    except Exception as error:  # see _open
        raise ImageError(f"the image in {head!r:.40} cannot be read: {error}") from None


def _open(path: Path, reading: Reading) -> Image.Image:
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder: pass the path of an image file")
        if path.exists() and not path.is_file():  # a pipe might never end
            raise ImageError(f"{path} is no regular file: pass the path of an image file")
        with open(path, "rb") as file:
            return _from_file(file, str(path), reading)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist: check the path of the image") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path} is not an image that Pillow can read: convert it to PNG or JPEG") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} is too large to open safely: {error}") from None
    except Exception as error:  # Pillow's decoders raise any kind of error for a damaged file
        raise ImageError(f"{path} cannot be read: {error}") from error


def _from_file(file: BinaryIO, name: str, reading: Reading) -> Image.Image:
    with Image.open(file) as image:
        return originals.keep(_read(image, name, reading), image, file)


def _read(image: Image.Image, name: str, reading: Reading) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"{name} is empty: {image.size[0]} x {image.size[1]} pixels")
    try:
        found = upright(image, reading)
        return found.copy() if found is image else found
    except Exception as error:  # see _open
        raise ImageError(f"{name} is damaged, or of a kind that has no RGB: {error}") from error


def upright(image: Image.Image, reading: Reading = USUAL) -> Image.Image:
    """RGB, turned as its EXIF says; the image itself if it is so already, since a copy of a large one costs memory."""
    if reading.upright and image.getexif().get(ExifTags.Base.Orientation) in _TURNED:
        image = ImageOps.exif_transpose(image)
    return _rgb(image, reading.on_white)


def _rgb(image: Image.Image, on_white: bool) -> Image.Image:
    """RGB, the image itself if it is; transparent pixels show white behind them, or the colour they have."""
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if not (on_white and image.has_transparency_data):
        return image if image.mode == "RGB" and "transparency" not in image.info else _opaque(image.convert("RGB"))
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _opaque(image: Image.Image) -> Image.Image:
    """Without the colour that counted as transparent, which Pillow keeps: a copy of it would show white there."""
    image.info.pop("transparency", None)
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits to 8, where Pillow would clip; an image of 32 bits may hold either."""
    pixels = np.asarray(image)
    if image.mode == "I" and pixels.max() <= 255:
        return image.convert("L")
    return Image.fromarray((pixels.clip(0, 65535) / 257).round().astype(np.uint8))


def _as_array(image: Any) -> np.ndarray:
    try:
        return np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImageError(f"cannot read this {type(image).__name__}: pass it as a numpy array ({error})") from error


def _from_array(array: np.ndarray, reading: Reading) -> Image.Image:
    """uint8, or floats in [0, 1]; grey [h, w], or [h, w, 1 | 3 | 4]."""
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"an image array is [height, width] or [height, width, 1, 3 or 4], not {list(array.shape)}")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ImageError("a float image array holds values from 0 to 1: scale it, or pass uint8")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"an image array is uint8, or float from 0 to 1, not {array.dtype}")
    return _rgb(Image.fromarray(array.squeeze(-1) if array.shape[2:] == (1,) else array), reading.on_white)
