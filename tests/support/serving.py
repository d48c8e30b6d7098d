"""The page of `dexar-fast serve` on a port of this machine, for tests; it answers with the embedded model."""

import base64
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the page needs Gradio: pip install gradio")

from dexar_fast.serve import server
from dexar_fast.serve.limits import Limits
from dexar_fast.serve.models import Models
from dexar_fast.serve.page.answers import Answers

ANSWER = "A red triangle, a yellow circle and a blue square."  # of the embedded model, asked to describe the sample
SAMPLE = Path(server.__file__).parents[1] / "assets" / "sample.png"


@dataclass(frozen=True)
class Served:
    """A running page: its address, and its server's side."""

    url: str
    answers: Answers


@contextmanager
def serving(models: Models | None = None, password: str | None = None, **limits: Any) -> Iterator[Served]:
    """The page, until the block ends."""
    allowed = Limits(**{"a_minute": 10_000} | limits)
    blocks, answers = server.page(models or Models.load([]), allowed)
    try:
        yield Served(server.start(blocks, allowed, "127.0.0.1", free_port(), password), answers)
    finally:
        blocks.close(verbose=False)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def uri(image: Image.Image | Path = SAMPLE, kind: str = "PNG") -> str:
    """A picture as a page sends it."""
    picture = Image.open(image) if isinstance(image, Path) else image
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return raw_uri(buffer.getvalue(), kind.lower())


def raw_uri(data: bytes, kind: str = "png") -> str:
    """Any bytes as if they were a picture."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def painted(size: tuple[int, int], box: tuple[int, int, int, int]) -> str:
    """A mask in which a box is painted."""
    mask = Image.new("RGBA", size)
    mask.paste((232, 89, 12, 255), box)
    return uri(mask)
