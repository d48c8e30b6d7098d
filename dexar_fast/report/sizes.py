"""How large a picture is shown."""

from __future__ import annotations

from typing import Any

from PIL import Image

from dexar_fast.errors import InputError

SCREEN = 1920  # pixels of the longer side


def sized(picture: Image.Image, size: Any) -> Image.Image:
    """The picture at the size "screen" or "full".

    Raises:
        InputError: another size.
    """
    if not isinstance(size, str) or size not in ("screen", "full"):
        raise InputError(f"size must be 'screen' or 'full', not {size!r}")
    return picture if size == "full" else within(picture, SCREEN, SCREEN)


def within(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture itself, or a smaller copy where it is wider or higher than this."""
    scale = min(width / picture.width, height / picture.height)
    return picture if scale >= 1 else scaled(picture, scale)


def scaled(picture: Image.Image, scale: float) -> Image.Image:
    """A copy `scale` times as large, of at least one pixel."""
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, reducing_gap=2)
