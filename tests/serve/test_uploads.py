"""Pictures of visitors: what is read, and what is refused before it costs anything."""

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import painted, raw_uri, uri

from dexar_fast.errors import ImageError
from dexar_fast.serve import uploads
from dexar_fast.serve.limits import Limits

LIMITS = Limits(pictures=3, file_bytes=200_000, pixels=90_000)


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, len(mode)), np.uint8)
    return Image.fromarray(values.squeeze())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "JPEG"])
def test_every_kind_is_read_as_rgb(kind: str) -> None:
    lossless = {"lossless": True} if kind == "WEBP" else {}
    buffer = io.BytesIO()
    picture = noise(7, 5).quantize(16) if kind == "GIF" else noise(7, 5)
    picture.save(buffer, kind, **lossless)
    given = uploads.read([{"data": raw_uri(buffer.getvalue(), kind.lower()), "name": "<b>x</b>"}], LIMITS)
    assert given.pictures[0].mode == "RGB" and given.pictures[0].size == (7, 5)
    if kind != "JPEG":
        assert given.pictures[0].tobytes() == picture.convert("RGB").tobytes()
    assert given.frames == []


def test_a_plain_data_uri_is_a_picture_too() -> None:
    given = uploads.read([uri(noise(3, 2))], LIMITS)
    assert given.pictures[0].size == (3, 2) and given.uris == [uri(noise(3, 2))]


def test_frames_keep_their_times() -> None:
    given = uploads.read(
        [{"data": uri(noise(3, 2)), "seconds": 0.25}, {"data": uri(noise(3, 2)), "seconds": 1}], LIMITS
    )
    assert given.frames == [
        {"video": 0, "frame": 0, "seconds": 0.25},
        {"video": 0, "frame": 1, "seconds": 1.0},
    ]
    mixed = uploads.read([{"data": uri(noise(3, 2)), "seconds": 0.25}, {"data": uri(noise(3, 2))}], LIMITS)
    assert mixed.frames == []  # a picture among them: no video


def test_an_exif_orientation_is_followed() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(8, 4).save(buffer, "JPEG", exif=exif)
    assert uploads.read([raw_uri(buffer.getvalue(), "jpeg")], LIMITS).pictures[0].size == (4, 8)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "no picture yet"),
        ([], "no picture yet"),
        ("data:image/png;base64,AAAA", "no picture yet"),
        ([1], "picture 1 is no picture"),
        ([{"path": "/etc/passwd"}], "picture 1 is no picture"),
        (["/etc/passwd"], "picture 1 is no picture"),
        (["file:///etc/passwd"], "picture 1 is no picture"),
        (["https://example.com/a.png"], "picture 1 is no picture"),
        (["data:text/html;base64,AAAA"], "picture 1 is no picture"),
        (["data:image/png;base64,!!!"], "picture 1 is not in base64"),
        ([raw_uri(b"hello")], "picture 1 is no PNG, JPEG, WEBP, GIF or BMP picture"),
        ([raw_uri(b"")], "picture 1 is no PNG"),
        ([raw_uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg+xml")], "picture 1 is no PNG"),
        ([raw_uri(b"%!PS-Adobe-3.0 EPSF-3.0\n")], "picture 1 is no PNG"),
        ([uri(noise(3, 3))] * 4, "4 pictures: at most 3 are taken"),
        ([uri(noise(3, 3)), uri(Image.new("RGB", (301, 300)))], "picture 2 has 301 x 300 pixels: at most"),
        ([raw_uri(b"\0" * 300_001)], "picture 1 has more than"),
    ],
)
def test_what_is_no_picture_or_too_large_is_refused(given: Any, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        uploads.read(given, LIMITS)


def test_a_broken_picture_is_refused() -> None:
    buffer = io.BytesIO()
    noise(50, 50).save(buffer, "PNG")
    with pytest.raises(ImageError, match="picture 1 is damaged"):
        uploads.read([raw_uri(buffer.getvalue()[:2000])], LIMITS)


def test_a_picture_that_unpacks_to_gigabytes_is_refused_by_its_header() -> None:
    """30,000 x 30,000 black pixels in a few bytes of a header: no pixel is decoded."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"picture 1 has 30000 x 30000|picture 1 is no PNG"):
            uploads.read([raw_uri(data)], LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_mask_is_what_is_painted() -> None:
    mask = uploads.mask(painted((6, 4), (1, 2, 3, 4)))
    expected = np.zeros((4, 6), bool)
    expected[2:4, 1:3] = True
    assert np.array_equal(mask, expected)


def test_a_mask_that_is_sent_is_read_as_it_was() -> None:
    mask = np.random.default_rng(0).random((5, 7)) > 0.5
    assert np.array_equal(uploads.mask(uploads.painted(mask)), mask)


def test_more_masks_than_pictures_are_refused_before_one_is_read() -> None:
    with pytest.raises(ImageError, match="3 masks for 1 picture: one each, or null"):
        uploads.masks(["never read"] * 3, 1)
    assert uploads.masks([None], 2) == [None]


def test_a_mask_of_another_kind_is_refused() -> None:
    with pytest.raises(ImageError, match="the mask is no PNG picture"):
        uploads.mask(uri(noise(4, 4), "JPEG"))
