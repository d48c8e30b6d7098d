"""Pictures that are opened when they are asked for, and what to say of one that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from dexar_fast.errors import ImageError, reason

Picture = Path | Callable[[], Image.Image]
Pixels = NDArray[np.bool_]
Found = TypeVar("Found")
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
}


class Stored(NamedTuple):
    """How a file holds a picture: its size in pixels, and how it is to be turned (EXIF's orientation)."""

    width: int
    height: int
    orientation: int

    def upright(self, mask: Pixels) -> Pixels:
        """A mask of the pixels as they are stored, turned as the picture is: models see it upright."""
        return _TURNS.get(self.orientation, np.asarray)(mask)


def at(path: Path) -> Path:
    """The path of a picture that is there.

    Raises:
        ImageError: it is not.
    """
    if not path.is_file():
        raise ImageError(f"{path} is missing" if not path.exists() else f"{path} is no file")
    return path


def opened(picture: Picture, name: str) -> Image.Image:
    """The picture, decoded; `name` stands for it in errors. Raises ImageError."""
    return _of(picture, name, _loaded)


def stored(picture: Picture, name: str) -> Stored:
    """How the picture is stored. Raises ImageError."""
    return _of(picture, name, lambda image: Stored(*image.size, image.getexif().get(ExifTags.Base.Orientation, 1)))


def decoded(data: bytes) -> Image.Image:
    """The picture in the bytes of a file."""
    return Image.open(BytesIO(data))


def _of(picture: Picture, name: str, read: Callable[[Image.Image], Found]) -> Found:
    shown = str(picture) if isinstance(picture, Path) else f"the picture of item {name!r}"
    try:
        if not isinstance(picture, Path):
            return read(picture())
        with Image.open(at(picture)) as image:
            return read(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{shown} is not an image that Pillow can read") from None
    except Exception as error:  # Pillow's decoders raise any kind of error for a damaged file
        raise ImageError(f"{shown} cannot be read: {reason(error)}") from error


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    return image
