"""Examples to click: scenes of coloured shapes, which any model can read and the embedded one knows."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from importlib.resources import files

from PIL import Image

from dexar_fast.data.shapes import draw_scene

SEED = 10_000_003  # a scene that the embedded model has not seen
EDGE = 96  # pixels of a button's picture


@dataclass(frozen=True)
class Example:
    """A question, and its pictures as data URIs."""

    question: str
    pictures: tuple[str, ...]
    small: str  # the first of them, for a button


def examples() -> list[Example]:
    """Questions about the sample picture and a drawn one."""
    sample = (files("dexar_fast") / "assets" / "sample.png").read_bytes()
    drawn = _drawn(SEED)
    (first, small), (second, small_second) = ((_uri(data), _small(data)) for data in (sample, drawn))
    return [
        Example("Describe the image.", (first,), small),
        Example("Which shape is yellow?", (first,), small),
        Example("What color is the square?", (first,), small),
        Example("Describe the image.", (second,), small_second),
    ]


def _small(data: bytes) -> str:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    picture.thumbnail((EDGE, EDGE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return _uri(buffer.getvalue(), "jpeg")


def _drawn(seed: int) -> bytes:
    buffer = io.BytesIO()
    draw_scene(seed).image.save(buffer, "PNG")
    return buffer.getvalue()


def _uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
