"""Pictures that a visitor sends, read within limits; no file is written and no address is fetched."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dexar_fast.errors import ImageError
from dexar_fast.serve.limits import Limits
from dexar_fast.vision.images import Loaded, load_image

KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # of each the first frame; other decoders of Pillow stay shut
MASK_BYTES, MASK_PIXELS = 2**20, 2**22
NEARLY_OPAQUE = 127
ORANGE = (232, 89, 12, 255)  # as the brush paints


@dataclass(frozen=True)
class Given:
    """The pictures of a question, and of a video's frames the second of each; no seconds for pictures."""

    pictures: Loaded
    uris: list[str]  # as they came
    seconds: list[float]

    @property
    def frames(self) -> list[dict[str, Any]]:
        """As `metadata["frames"]` of an explanation tells of them."""
        return [{"video": 0, "frame": n, "seconds": second} for n, second in enumerate(self.seconds)]


def read(given: Any, limits: Limits) -> Given:
    """The pictures of a request: data URIs, or {"data": data URI, "seconds": of a frame}.

    Raises:
        ImageError: none, too many, one that is too large, or no picture at all; the message says which.
    """
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise ImageError("no picture yet: drop, paste or choose one, or take an example")
    if len(given) > limits.pictures:
        raise ImageError(f"{len(given)} pictures: at most {limits.pictures} are taken")
    parts = _parts(given)
    found = [_picture(part.get("data"), f"picture {n}", limits) for n, part in enumerate(parts, 1)]
    seconds = [part.get("seconds") for part in parts]
    timed = all(isinstance(second, int | float) and not isinstance(second, bool) for second in seconds)
    times = [float(second) for second in seconds if second is not None] if timed else []
    return Given(Loaded(found), [str(part["data"]) for part in parts], times)


def uris(given: Any) -> list[Any]:
    """What `Given.uris` of a request would be, unread."""
    return [part.get("data") for part in _parts(given)] if isinstance(given, Sequence) else [given]


def _parts(given: Sequence[Any]) -> list[Mapping[str, Any]]:
    return [each if isinstance(each, Mapping) else {"data": each} for each in given]


def _picture(uri: Any, name: str, limits: Limits) -> Image.Image:
    with _opened(uri, name, limits.file_bytes, limits.pixels, KINDS) as image:
        try:
            return load_image(image)
        except ImageError as error:
            raise ImageError(str(error).replace("the image", name, 1)) from None


def mask(uri: Any) -> NDArray[np.bool_]:
    """[height, width], True where a PNG is painted. Raises ImageError."""
    with _opened(uri, "the mask", MASK_BYTES, MASK_PIXELS, ("PNG",)) as image:
        try:
            return np.asarray(image.convert("RGBA"))[..., 3] > NEARLY_OPAQUE
        except Exception as error:  # Pillow's decoders raise any kind of error for a damaged file
            raise ImageError(f"the mask cannot be read: {error}") from None


def masks(given: Any, pictures: int) -> list[NDArray[np.bool_] | None]:
    """For each of so many pictures its `mask`, or None; nothing at all is taken. Raises ImageError."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ImageError("masks must be a list: for each picture a PNG as a data URI, or null")
    if len(given) > pictures:
        raise ImageError(f"{len(given)} masks for {pictures} picture{'s' * (pictures > 1)}: one each, or null")
    return [None if each is None else mask(each) for each in given]


def painted(hidden: NDArray[np.bool_]) -> str:
    """[height, width] as a PNG that `mask` reads: a data URI, orange where it is True."""
    pixels = np.zeros((*hidden.shape, 4), np.uint8)
    pixels[hidden] = ORANGE
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _opened(uri: Any, name: str, most_bytes: int, most_pixels: int, kinds: tuple[str, ...]) -> Image.Image:
    """The header is read; what it says of the size is checked before any pixel is."""
    data = _bytes(uri, name, most_bytes)
    try:
        image = Image.open(io.BytesIO(data), formats=kinds)
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise ImageError(f"{name} is no {', '.join(kinds[:-1]) or kinds[-1]}{' or ' * (len(kinds) > 1)}"
                         f"{kinds[-1] * (len(kinds) > 1)} picture: convert it first") from None  # fmt: skip
    except Exception as error:  # as above
        raise ImageError(f"{name} cannot be read: {error}") from None
    if image.width * image.height > most_pixels:
        raise ImageError(
            f"{name} has {image.width} x {image.height} pixels: at most {most_pixels / 2**20:.3g} megapixels are taken"
        )
    return image


def _bytes(uri: Any, name: str, most: int) -> bytes:
    head, comma, body = uri.partition(",") if isinstance(uri, str) else ("", "", "")
    if not (comma and head.startswith("data:image/") and head.endswith(";base64")):
        raise ImageError(f"{name} is no picture: send it as data:image/png;base64,...")
    if len(body) > most * 4 // 3 + 4:
        raise ImageError(f"{name} has more than {most / 2**20:.3g} MiB: send a smaller one")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise ImageError(f"{name} is not in base64") from None
