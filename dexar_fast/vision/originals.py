"""The file that an image was read from, kept beside its pixels: to make it again takes longer, and it may grow."""

from __future__ import annotations

from typing import BinaryIO

from PIL import Image

FORMATS = ("PNG", "JPEG", "MPO")  # phones put several pictures into one JPEG file; the first is read
_KEY = "dexar_fast: file"  # in `info`, which Pillow also copies to what is cut or resized from the image


def keep(image: Image.Image, opened: Image.Image, file: BinaryIO) -> Image.Image:
    """The image, with the bytes of the file that it was opened from where that is a PNG or a JPEG."""
    if opened.format in FORMATS:
        file.seek(0)
        image.info[_KEY] = file.read()
    return image


def kept(image: Image.Image) -> bytes | None:
    """The bytes of the file that this image, or one that it was made from, was read from."""
    return image.info.get(_KEY)
