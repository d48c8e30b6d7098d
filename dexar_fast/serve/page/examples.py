"""Examples to click: scenes of coloured shapes, which any model can read and the embedded one knows."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from importlib.resources import files

from dexar_fast.data.shapes import draw_scene

SEED = 10_000_003  # a scene that the embedded model has not seen


@dataclass(frozen=True)
class Example:
    """A question, and its pictures as data URIs."""

    question: str
    pictures: tuple[str, ...]


def examples() -> list[Example]:
    """The sample picture and a drawn one; the last question is about both."""
    sample = (files("dexar_fast") / "assets" / "sample.png").read_bytes()
    first, second = _uri(sample), _uri(_drawn(SEED))
    return [
        Example("Describe the image.", (first,)),
        Example("Which shape is yellow?", (first,)),
        Example("What color is the square?", (first,)),
        Example("Describe the image.", (second, first)),
    ]


def _drawn(seed: int) -> bytes:
    buffer = io.BytesIO()
    draw_scene(seed).image.save(buffer, "PNG")
    return buffer.getvalue()


def _uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
