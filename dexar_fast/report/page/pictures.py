"""Pictures small enough to carry in a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from dexar_fast.report import placing, sizes
from dexar_fast.report.page import naming
from dexar_fast.results.schema import Result

_LONGEST_EDGE, _SHORTEST_LONGEST_EDGE = 960, 320
_SMALLEST_CANVAS = 480  # a map is drawn smoothly also over an image of few pixels
_BYTES, _BYTES_OF_ALL, _FEWEST_BYTES = 300_000, 700_000, 16_000
_BYTES_OF_PNG = 48_000  # up to here exact pixels are worth their size
_MOST_GAINED = 4  # by how much the best compression may beat the quickest
_QUALITIES = (88, 78, 64, 48, 30)
_STEEPEST = 6.0  # a steeper picture is squeezed: a line of one pixel could not be seen


@dataclass(frozen=True)
class Picture:
    """One image of an explanation as a page shows it.

    Attributes:
        name: "image 2", "frame 1", "video 2, frame 13 (0.50 s)".
        source: a data URI; empty where the image was not kept.
        width, height: of the map drawn over it, in pixels.
        mapped: whether any visual token belongs to it.
    """

    name: str
    source: str
    width: int
    height: int
    mapped: bool

    @property
    def ratio(self) -> float:
        """Width to height of the frame it is shown in."""
        return min(max(self.width / self.height, 1 / _STEEPEST), _STEEPEST)


def pictures(explanation: Result) -> list[Picture]:
    """The images in order, then the frames, all within a budget of bytes."""
    names = naming.names(explanation)
    edge = int(max(_SHORTEST_LONGEST_EDGE, min(_LONGEST_EDGE, 1600 / max(1, len(names)) ** 0.5)))
    budget = max(_FEWEST_BYTES, min(_BYTES, _BYTES_OF_ALL // max(1, len(names))))
    found = []
    for index, name in enumerate(names):
        source = _embedded(explanation.images[index], edge, budget) if explanation.images else ""
        width, height = _canvas(placing.extent(explanation, index), edge)
        mapped = any(index in grid.images for grid in explanation.grids)
        found.append(Picture(name, source, width, height, mapped))
    return found


def _canvas(size: tuple[int, int], edge: int) -> tuple[int, int]:
    longest = max(size)
    scale = min(max(longest, min(_SMALLEST_CANVAS, edge)), edge) / longest
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _embedded(image: Image.Image, edge: int, budget: int) -> str:
    small = sizes.within(image, edge, edge)
    exact = _exact(small, min(_BYTES_OF_PNG, budget)) if small.width * small.height <= _SMALLEST_CANVAS**2 else None
    if exact is not None:
        return _data_uri("png", exact)
    for quality in _QUALITIES:
        data = _encoded(small, format="JPEG", quality=quality, optimize=True)
        if len(data) <= budget:
            break
    return _data_uri("jpeg", data)


def _exact(image: Image.Image, most: int) -> bytes | None:
    """A PNG; None where it takes more bytes, which a quick one tells of most photographs."""
    if len(_encoded(image, format="PNG", compress_level=1)) > _MOST_GAINED * most:
        return None
    best = _encoded(image, format="PNG", optimize=True)
    return best if len(best) <= most else None


def _encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
