"""The table of bad input: images."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_input
import numpy as np
import pytest
from bad_input import ANSWER, PICTURE, PROMPT, Case, Row
from PIL import Image

GREY = PICTURE.convert("L")


def given(path: Path | str, like: Image.Image | None = None) -> list[Case]:
    """An image file; what is explained is explained like the upright RGB image."""
    expected = None if like is None else (lambda: bad_input.explain(like))
    return [Case(lambda: bad_input.explain(path), expected, [str(path), PROMPT, "--response", ANSWER])]


def saved(name: str, image: Image.Image, like: Image.Image, **options: Any) -> Callable[[Path], list[Case]]:
    def cases(folder: Path) -> list[Case]:
        image.save(folder / name, **options)
        return given(folder / name, like)

    return cases


def written(name: str, content: bytes) -> Callable[[Path], list[Case]]:
    def cases(folder: Path) -> list[Case]:
        (folder / name).write_bytes(content)
        return given(folder / name)

    return cases


def truncated(folder: Path) -> list[Case]:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    paths = [folder / name for name in ("cut.png", "cut.jpg")]
    for path in paths:
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return [case for path in paths for case in given(path)]


def pipe(folder: Path) -> list[Case]:
    """Whoever opens it waits for ever."""
    os.mkfifo(folder / "a.png")
    return given(folder / "a.png")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few hundred bytes that says it holds 3.6 billion pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def palette() -> Image.Image:
    image = PICTURE.quantize(2)
    assert image.mode == "P"
    return image


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)


def see_through() -> Image.Image:
    """Half of it, without a trace of its colours."""
    image = PICTURE.convert("RGBA")
    image.paste((9, 9, 9, 0), (20, 0, 40, 30))
    return image


def on_white() -> Image.Image:
    image = PICTURE.copy()
    image.paste("white", (20, 0, 40, 30))
    return image


def turned() -> dict[str, Any]:
    """A photo that lies on its side, and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"image": PICTURE.transpose(Image.Transpose.ROTATE_90), "exif": exif}


FRAMES = {"save_all": True, "append_images": [Image.new("RGB", PICTURE.size, "blue")]}


def beside_inputs(behind: Image.Image, given: Any, shown: Image.Image) -> Callable[[Path], list[Case]]:
    """Inputs that the processor made of one picture, explained with another beside them."""

    def explained(beside: Any) -> Any:
        text = f"USER: {bad_input.small_llava.IMAGE}\n{PROMPT} ASSISTANT:"
        inputs = bad_input.PROCESSOR(images=behind, text=text, return_tensors="pt")
        ids = bad_input.TOKENIZER(" " + ANSWER, add_special_tokens=False).input_ids
        return bad_input.Explainer(bad_input.MODEL, bad_input.PROCESSOR).explain_inputs(inputs, ids, images=beside)

    return lambda folder: [Case(lambda: explained(given), lambda: explained(shown))]


def lying() -> Image.Image:
    """A photo in memory that lies on its side, and says so."""
    image, exif = turned()["image"], turned()["exif"]
    image.getexif()[0x0112] = exif[0x0112]
    return image


ROWS = {
    "missing file": Row("ImageError", ("does not exist: check the path",), lambda f: given(f / "none.png")),
    "empty file": Row("ImageError", ("is not an image that Pillow can read: convert it",), written("a.png", b"")),
    "truncated file": Row("ImageError", ("is damaged",), truncated),
    "file that is not an image": Row("ImageError", ("is not an image that Pillow can read",), written("a.png", b"hi")),
    "folder": Row("ImageError", ("is a folder: pass the path of an image file",), given),
    "pipe or device": Row("ImageError", ("is no regular file: pass the path of an image file",), pipe),
    "address on the web": Row(
        "ImageError",
        ("https://example.org/a//b%20c.png is on the web: download it first",),
        lambda f: given("https://example.org/a//b%20c.png"),
    ),
    "decompression bomb": Row("ImageError", ("is too large to open safely",), written("a.png", bomb())),
    "1 pixel": Row("explained", ("as it is",), saved("a.png", Image.new("RGB", (1, 1)), Image.new("RGB", (1, 1)))),
    "1 x 5000 pixels": Row(
        "explained",
        ("as it is, where the family's processor takes it",),
        saved("a.png", Image.new("RGB", (1, 5000), "red"), Image.new("RGB", (1, 5000), "red")),
    ),
    "CMYK": Row(
        "explained",
        ("as RGB",),
        saved("a.tiff", PICTURE.convert("CMYK"), PICTURE.convert("CMYK").convert("RGB")),
    ),
    "16 bit": Row("explained", ("scaled to 8 bit",), saved("a.png", sixteen_bits(), GREY.convert("RGB"))),
    "palette": Row("explained", ("as RGB",), saved("a.gif", palette(), PICTURE)),
    "grey": Row("explained", ("as RGB",), saved("a.png", GREY, GREY.convert("RGB"))),
    "alpha": Row("explained", ("what is transparent is white",), saved("a.png", see_through(), on_white())),
    "animated": Row("explained", ("the first frame",), saved("a.webp", PICTURE, PICTURE, lossless=True, **FRAMES)),
    "EXIF-rotated": Row("explained", ("shown and explained upright",), saved("a.png", like=PICTURE, **turned())),
    "EXIF-rotated photo beside inputs": Row(
        "explained",
        ("drawn on as the model saw it, which was as it lies",),
        beside_inputs(lying(), lying(), turned()["image"]),
    ),
    "path with spaces and non-ASCII": Row("explained", ("as it is",), saved("ein Bild ü 猫 🙂.png", PICTURE, PICTURE)),
}


@pytest.mark.parametrize("row", ROWS)
def test_image(row: str, tmp_path: Path, model_folder: Path) -> None:
    bad_input.check(ROWS[row], tmp_path, model_folder)


@pytest.mark.parametrize("other", [PICTURE.transpose(Image.Transpose.ROTATE_180), Image.new("RGB", PICTURE.size)])
def test_another_picture_beside_inputs_has_no_map(other: Image.Image) -> None:
    (case,) = beside_inputs(PICTURE, other, PICTURE)(Path())
    found = case.explain()
    assert found.grids == () and found.token_maps.any()
    assert "pass the very pictures it got" in found.diagnostics["warnings"][0]


def test_an_upright_image_is_explained_unlike_the_turned_one() -> None:
    """What makes the row of the EXIF-rotated image able to fail."""
    sideways, upright = bad_input.explain(turned()["image"]), bad_input.explain(PICTURE)
    assert not np.allclose(sideways.unfiltered_token_maps, upright.unfiltered_token_maps, rtol=1e-2)


def test_a_processor_that_refuses_a_thin_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Qwen2-VL's does, with a ValueError, and others with what else comes up on the way."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("height is 0")

    monkeypatch.setattr(type(bad_input.PROCESSOR), "__call__", refuse)
    with pytest.raises(bad_input.errors.InputError, match=r"LlavaProcessor cannot take this image.*height is 0"):
        bad_input.explain(Image.new("RGB", (1, 5000)))
