"""Pictures that are opened when they are asked for, and what to say of one that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dexar_fast.errors import ImageError, reason

Picture = Path | Callable[[], Image.Image]


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
    return _of(picture, name, decoded=True)


def size(picture: Picture, name: str) -> tuple[int, int]:
    """Width and height as stored. Raises ImageError."""
    return _of(picture, name, decoded=False).size


def decoded(data: bytes) -> Image.Image:
    """The picture in the bytes of a file."""
    return Image.open(BytesIO(data))


def _of(picture: Picture, name: str, decoded: bool) -> Image.Image:
    shown = str(picture) if isinstance(picture, Path) else f"the picture of item {name!r}"
    try:
        if not isinstance(picture, Path):
            return _loaded(picture(), decoded)
        with Image.open(at(picture)) as image:
            return _loaded(image, decoded)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{shown} is not an image that Pillow can read") from None
    except Exception as error:  # Pillow's decoders raise any kind of error for a damaged file
        raise ImageError(f"{shown} cannot be read: {reason(error)}") from error


def _loaded(image: Image.Image, decoded: bool) -> Image.Image:
    if decoded:
        image.load()
    return image
