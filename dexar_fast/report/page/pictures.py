"""Pictures small enough to carry in a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from dexar_fast.report import placing, sizes
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
    names = _names(explanation)
    edge = int(max(_SHORTEST_LONGEST_EDGE, min(_LONGEST_EDGE, 1600 / max(1, len(names)) ** 0.5)))
    budget = max(_FEWEST_BYTES, min(_BYTES, _BYTES_OF_ALL // max(1, len(names))))
    found = []
    for index, name in enumerate(names):
        source = _embedded(explanation.images[index], edge, budget) if explanation.images else ""
        width, height = _canvas(placing.extent(explanation, index), edge)
        mapped = any(index in grid.images for grid in explanation.grids)
        found.append(Picture(name, source, width, height, mapped))
    return found


def _names(explanation: Result) -> list[str]:
    """The names of the pictures: all images, then all frames."""
    count = placing.count(explanation)
    frames = _told(explanation.metadata.get("frames")) or _frames_of_grids(explanation, count)
    images = max(0, count - len(frames))
    several = len({frame["video"] for frame in frames}) > 1
    return [f"image {n + 1}" for n in range(images)] + [_frame(frame, several) for frame in frames[: count - images]]


def _told(frames: Any) -> list[dict[str, Any]]:
    """What the result says of its frames; none where a file was changed and it says something else."""
    listed = frames if isinstance(frames, list) and all(isinstance(frame, dict) for frame in frames) else []
    kinds = {"video": int, "frame": int, "seconds": float}
    whole = [
        all(isinstance(frame.get(name, 0.0 if name == "seconds" else None), kind) for name, kind in kinds.items())
        for frame in listed
    ]
    return listed if all(whole) else []


def _frames_of_grids(explanation: Result, count: int) -> list[dict[str, Any]]:
    first = min((grid.image for grid in explanation.grids if grid.video), default=count)
    return [{"video": 0, "frame": n} for n in range(count - first)]


def _frame(frame: dict[str, Any], several: bool) -> str:
    """Such as "video 2, frame 13 (0.50 s)"."""
    time = f" ({frame['seconds']:.2f} s)" if "seconds" in frame else ""
    return f"video {frame['video'] + 1}, " * several + f"frame {frame['frame'] + 1}{time}"


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
