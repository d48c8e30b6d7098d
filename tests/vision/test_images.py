"""Images as users hold them: every kind comes out upright and RGB, or is refused with what to do."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dexar_fast import ImageError
from dexar_fast.vision.images import load_image, load_images

QUICK = settings(max_examples=150, deadline=None, derandomize=True)
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def pixels(image: Any) -> list[list[tuple[int, ...]]]:
    """The rows of the loaded image."""
    loaded = load_image(image)
    assert loaded.mode == "RGB"
    return [[tuple(cell) for cell in row] for row in np.asarray(loaded).tolist()]


def two_by_one() -> Image.Image:
    """Red, then green."""
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), GREEN)
    return image


# Files


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("name", ["image.png", "image.bmp", "image.gif", "im age ü.webp"])
def test_a_path(tmp_path: Path, name: str, kind: Callable[[Path], Any]) -> None:
    path = tmp_path / name
    two_by_one().save(path, **({"lossless": True} if name.endswith("webp") else {}))
    assert pixels(kind(path)) == [[RED, GREEN]]


def test_the_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    two_by_one().save(path)
    image = load_image(path)
    path.unlink()
    assert image.copy().size == (2, 1)


TURNS = {
    1: [[RED, GREEN]],
    2: [[GREEN, RED]],
    3: [[GREEN, RED]],
    6: [[RED], [GREEN]],
    8: [[GREEN], [RED]],
}


@pytest.mark.parametrize(("orientation", "upright"), TURNS.items())
def test_a_photo_is_turned_upright(tmp_path: Path, orientation: int, upright: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    two_by_one().save(tmp_path / "image.png", exif=exif)
    assert pixels(tmp_path / "image.png") == upright
    with Image.open(tmp_path / "image.png") as opened:
        assert pixels(opened) == upright


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), color) for color in (RED, GREEN)]
    frames[0].save(tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path / "image.gif") == [[RED] * 2] * 2


# Pillow images


@pytest.mark.parametrize(
    ("mode", "color", "seen"),
    [
        ("RGB", RED, RED),
        ("L", 128, (128,) * 3),
        ("1", 1, WHITE),
        ("1", 0, (0, 0, 0)),
        ("CMYK", (0, 255, 255, 0), RED),
        ("HSV", (0, 255, 255), RED),
        ("I", 128, (128,) * 3),
        ("I", 65535, WHITE),
        ("I;16", 65535, WHITE),
        ("I;16", 0, (0, 0, 0)),
        ("I;16B", 32896, (128,) * 3),
        ("F", 128.0, (128,) * 3),
        ("RGBA", (*RED, 255), RED),
        ("LA", (128, 255), (128,) * 3),
    ],
)
def test_every_mode_becomes_rgb(mode: str, color: Any, seen: tuple[int, ...]) -> None:
    assert pixels(Image.new(mode, (2, 1), color)) == [[seen, seen]]


def test_a_palette() -> None:
    assert pixels(two_by_one().convert("P")) == [[RED, GREEN]]


def test_a_dark_image_of_32_bits_keeps_its_shades() -> None:
    image = Image.fromarray(np.array([[0, 7, 255]], dtype=np.int32))
    assert pixels(image) == [[(0,) * 3, (7,) * 3, WHITE]]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint16)[None] * 257
    for image in (Image.fromarray(ramp), Image.fromarray(ramp.astype(np.int32))):
        assert [cell[0] for cell in pixels(image)[0]] == list(range(256))
    Image.fromarray(ramp).save(tmp_path / "image.png")
    assert [cell[0] for cell in pixels(tmp_path / "image.png")[0]] == list(range(256))


@pytest.mark.parametrize("hidden", [(0, 0, 0, 0), (255, 0, 0, 0)])
def test_transparent_pixels_are_white(hidden: tuple[int, ...]) -> None:
    assert pixels(Image.new("RGBA", (2, 1), hidden)) == [[WHITE, WHITE]]
    assert pixels(Image.new("LA", (2, 1), (0, 0))) == [[WHITE, WHITE]]


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    assert pixels(Image.new("RGBA", (1, 1), (255, 0, 0, 128))) == [[(255, 127, 127)]]


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    two_by_one().convert("P", palette=Image.Palette.ADAPTIVE, colors=2).save(tmp_path / "image.png", transparency=0)
    with Image.open(tmp_path / "image.png") as image:
        assert image.mode == "P"
        hidden = [[image.getpixel((column, 0)) == 0 for column in range(2)]]
    shown = [[WHITE if gone else color for gone, color in zip(hidden[0], (RED, GREEN), strict=True)]]
    assert sum(hidden[0]) == 1
    assert pixels(tmp_path / "image.png") == shown


def test_the_callers_image_is_left_as_it_was() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    loaded = load_image(image)
    loaded.putpixel((0, 0), GREEN)
    assert (image.mode, image.getpixel((0, 0))) == ("RGBA", (255, 0, 0, 0))


# Arrays

GREY = np.array([[0, 128, 255]], dtype=np.uint8)
GREYS = [[(0,) * 3, (128,) * 3, WHITE]]
COLOR = np.array([[RED, GREEN]], dtype=np.uint8)


@pytest.mark.parametrize(
    "array",
    [GREY, GREY[..., None], np.stack([GREY] * 3, -1), GREY / 255, (GREY / 255).astype(np.float32), torch.tensor(GREY)],
)
def test_a_grey_array(array: Any) -> None:
    assert pixels(array) == GREYS


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_a_colour_array(dtype: type) -> None:
    scale = 1 if dtype is np.uint8 else 255
    assert pixels((COLOR / scale).astype(dtype)) == [[RED, GREEN]]
    assert pixels(COLOR[:, ::-1]) == [[GREEN, RED]]


def test_an_array_with_transparency() -> None:
    array = np.concatenate([COLOR, np.array([[[255], [0]]], dtype=np.uint8)], axis=2)
    assert pixels(array) == [[RED, WHITE]]
    assert pixels(array / 255) == [[RED, WHITE]]


def test_a_float_is_rounded() -> None:
    assert pixels(np.array([[0.5, 0.998]])) == [[(128,) * 3, (254,) * 3]]


# Lists


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_any_kind(tmp_path: Path, kind: Callable[[list[Any]], Any]) -> None:
    two_by_one().save(tmp_path / "image.png")
    images = load_images(kind([tmp_path / "image.png", str(tmp_path / "image.png"), two_by_one(), COLOR]))
    assert [pixels(image) for image in images] == [[[RED, GREEN]]] * 4


def test_one_image_is_a_list_of_one() -> None:
    assert [image.size for image in load_images(two_by_one())] == [(2, 1)]
    assert [image.size for image in load_images(COLOR)] == [(2, 1)]


# Errors


def refused(image: Any, *words: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_images(image)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "none.png", "none.png does not exist", "check the path")
    refused(str(tmp_path / "no" / "none.png"), "none.png does not exist")


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, str(tmp_path), "is a folder", "pass the path of an image file")
    refused("", "is a folder")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("not an image")
    refused(tmp_path / "note.png", "note.png is not an image", "PNG or JPEG")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", "empty.png is not an image")


def test_a_prompt_in_the_place_of_the_path() -> None:
    refused("What is in this image? " * 50, "cannot be read")
    refused("a\0b", "cannot be read")


def test_a_text_too_long_for_a_path_is_not_repeated() -> None:
    with pytest.raises(ImageError, match="is too long for a path: pass base64 as") as caught:
        load_images("iVBORw0KGgo" * 1000)
    assert len(str(caught.value)) < 200


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(file: Any) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "image.png"))

    (tmp_path / "image.png").touch()

    monkeypatch.setattr(Image, "open", denied)
    refused(tmp_path / "image.png", "image.png cannot be read", "Permission denied")


def test_a_truncated_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for name in ("image.png", "image.jpg"):
        path = tmp_path / name
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refused(path, name, "damaged")


def test_an_image_too_large_to_open_safely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_by_one().resize((40, 40)).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(tmp_path / "image.png", "image.png is too large")


def encoded(name: str) -> bytes:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, format=name)
    return buffer.getvalue()


FORMATS = {name: encoded(name) for name in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "PPM", "SGI", "WEBP")}


@pytest.mark.filterwarnings("ignore::UserWarning")
@QUICK
@given(name=st.sampled_from(sorted(FORMATS)), data=st.data())
def test_any_damage_is_an_image_error_or_still_an_image(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    damaged = bytearray(FORMATS[name])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, min(len(damaged), 60) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{name.lower()}"
    path.write_bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
    try:
        assert load_image(path).mode == "RGB"
    except ImageError as error:
        assert str(path) in str(error)


def test_a_header_that_pillow_stumbles_over(tmp_path: Path) -> None:
    (tmp_path / "image.ppm").write_bytes(b"P6\n2\xb2 4\n255\n" + bytes(24))
    refused(tmp_path / "image.ppm", "image.ppm cannot be read")


def test_a_closed_image() -> None:
    image = two_by_one()
    image.close()
    refused(image, "the image is damaged")


def test_an_image_without_pixels() -> None:
    refused(Image.new("RGB", (0, 5)), "empty", "0 x 5")


def test_a_kind_without_rgb() -> None:
    refused(Image.new("La", (2, 2)), "the image is damaged, or of a kind that has no RGB")


@pytest.mark.parametrize("thing", [None, 7, b"bytes", {"a": 1}, object()])
def test_what_is_no_image(thing: Any) -> None:
    refused(thing, f"cannot read a {type(thing).__name__}", "a path, a PIL image or an array")


def test_nothing_and_lists_within_lists() -> None:
    refused([], "no image")
    refused([[two_by_one()]], "cannot read a list")


def test_one_bad_image_of_several_is_named(tmp_path: Path) -> None:
    refused([two_by_one(), tmp_path / "none.png"], "none.png does not exist")


@pytest.mark.parametrize("shape", [(), (3,), (3, 8, 8), (2, 4, 4, 3), (4, 4, 2), (0, 4), (4, 0, 3)])
def test_an_array_of_another_shape(shape: tuple[int, ...]) -> None:
    refused(np.zeros(shape, np.uint8), "[height, width]", str(list(shape)))


@pytest.mark.parametrize("values", [[-0.1, 0.5], [0.0, 1.5], [0.0, 255.0], [float("nan"), 0.5], [float("inf"), 0.5]])
def test_a_float_array_out_of_range(values: list[float]) -> None:
    refused(np.array([values]), "from 0 to 1", "uint8")


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint16, object])
def test_an_array_of_another_dtype(dtype: Any) -> None:
    refused(np.zeros((4, 4), dtype), "uint8, or float from 0 to 1", np.dtype(dtype).name)


@pytest.mark.parametrize(
    "tensor", [torch.rand(4, 4, 3, requires_grad=True), torch.rand(4, 4, 3).bfloat16()], ids=["grad", "bfloat16"]
)
def test_a_tensor_that_numpy_cannot_take(tensor: torch.Tensor) -> None:
    refused(tensor, "cannot read this Tensor", "pass it as a numpy array")
