"""Pictures in the file of an explanation: as the file they came from, or as PNG, with the same pixels again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_explanations import make
from PIL import Image, ImageDraw
from report_examples import explanation as placed
from safetensors import safe_open

from dexar_fast import Explanation, FileError, InputError
from dexar_fast.report import tables
from dexar_fast.results import pictures
from dexar_fast.vision.grid import Grid
from dexar_fast.vision.images import Reading, load_image, load_images, upright

ORIENTATION = 0x0112


def noise(mode: str = "RGB", size: tuple[int, int] = (53, 31)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    return Image.fromarray(values.squeeze(), mode) if mode == "L" else Image.fromarray(values).convert(mode)


def jpeg(path: Path, mode: str = "RGB", turn: int = 1, **options: Any) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    image = Image.merge("CMYK", (*noise("RGB").split(), noise("L"))) if mode == "CMYK" else noise(mode)
    image.save(path, format="JPEG", exif=exif, **options)
    return path


def stored(path: Path) -> list[bytes]:
    with safe_open(path, framework="pt") as file:
        names = sorted(name for name in file.keys() if name.startswith("image_"))  # noqa: SIM118
        return [file.get_tensor(name).numpy().tobytes() for name in names]


def saved(image: Image.Image, path: Path) -> Explanation:
    make(images=(image,)).save(path)
    return Explanation.load(path)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_kept_as_the_bytes_that_came(tmp_path: Path, mode: str, turn: int) -> None:
    path = jpeg(tmp_path / "photo.jpg", mode, turn, progressive=turn % 2 == 0)
    image = load_image(path)
    assert image.size == ((53, 31) if turn < 5 else (31, 53))
    again = saved(image, tmp_path / "first")
    assert stored(tmp_path / "first") == [path.read_bytes()]
    assert (again.images[0].mode, again.images[0].tobytes()) == ("RGB", image.tobytes())
    again.save(tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == (tmp_path / "first").read_bytes()


def test_the_first_picture_of_a_phones_file(tmp_path: Path) -> None:
    noise().save(tmp_path / "two.mpo", format="MPO", save_all=True, append_images=[noise().rotate(180)])
    image = load_image(tmp_path / "two.mpo")
    assert saved(image, tmp_path / "x").images[0].tobytes() == image.tobytes()
    assert stored(tmp_path / "x") == [(tmp_path / "two.mpo").read_bytes()]


def test_a_png_is_kept_too_but_for_no_other_file(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "a.gif"):
        noise().save(tmp_path / name)
        image = load_image(tmp_path / name)
        assert saved(image, tmp_path / "x").images[0].tobytes() == image.tobytes()
        assert (stored(tmp_path / "x") == [(tmp_path / name).read_bytes()]) == (name == "a.png")
        assert stored(tmp_path / "x")[0].startswith(b"\x89PNG")


def drawn_on(image: Image.Image) -> Image.Image:
    ImageDraw.Draw(image).point((52, 30), "white" if image.getpixel((52, 30)) != (255, 255, 255) else "black")
    return image


@pytest.mark.parametrize(
    "change",
    [
        drawn_on,
        lambda image: image.crop((0, 0, 30, 20)),
        lambda image: image.transpose(Image.Transpose.ROTATE_180),
        lambda image: image.resize((31, 53)),
    ],
)
def test_what_was_changed_since_it_was_read_is_stored_as_it_is(
    tmp_path: Path, change: Callable[[Image.Image], Image.Image]
) -> None:
    changed = change(load_image(jpeg(tmp_path / "photo.jpg")))
    assert saved(changed, tmp_path / "x").images[0].tobytes() == changed.tobytes()
    assert stored(tmp_path / "x")[0].startswith(b"\x89PNG")


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_colour_that_counts_as_transparent_is_stored_as_it_was_seen(tmp_path: Path, mode: str) -> None:
    """By a processor that drops transparency: black stays black, though the same file on white shows white."""
    picture = Image.new("RGB", (6, 4), "red").convert(mode)
    picture.paste(0 if mode != "RGB" else (0, 0, 0), (0, 0, 3, 4))
    picture.info["transparency"] = 0 if mode != "RGB" else (0, 0, 0)
    seen = upright(picture, Reading(on_white=False))
    assert saved(seen, tmp_path / "x").images[0].tobytes() == seen.tobytes()
    assert "transparency" in picture.info


def test_a_file_without_its_pictures(tmp_path: Path) -> None:
    explanation = make(images=(noise(size=(60, 40)),))
    explanation.save(tmp_path / "x", images=False)
    assert stored(tmp_path / "x") == []
    again = Explanation.load(tmp_path / "x")
    assert again.images == () and np.array_equal(again.heatmap(), explanation.heatmap())


@pytest.mark.parametrize("box", [None, (10, 0, 50, 40), (0, -10, 60, 50)], ids=["whole", "cropped", "padded"])
def test_maps_lie_where_they_did_without_their_pictures(tmp_path: Path, box: Any) -> None:
    """A centre crop ends before the picture does, a padded square behind it."""
    photo = noise(size=(60, 40))
    made = placed(grids=(Grid(0, 0, 2, 3, box),), images=(photo,))
    made.save(tmp_path / "x", images=False)
    again = Explanation.load(tmp_path / "x")
    assert np.array_equal(np.asarray(again.overlay(image=photo)), np.asarray(made.overlay()))
    assert tables.columns_of(again) == tables.columns_of(made)
    again.save(tmp_path / "y", images=False)
    assert Explanation.load(tmp_path / "y").metadata["image_sizes"] == [[60, 40]]
    again.metadata.pop("image_sizes")  # as an older release wrote it
    if box is None:
        assert np.array_equal(np.asarray(again.overlay(image=photo)), np.asarray(made.overlay()))
        return
    for draw in (lambda: again.overlay(image=photo), lambda: tables.columns_of(again)):
        with pytest.raises(InputError, match="a picture whose size is not known"):
            draw()


def test_pictures_that_are_left_out_may_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_PIXELS", 10)
    make().save(tmp_path / "x", images=False)
    with pytest.raises(FileError, match="a file at most 10"):
        make().save(tmp_path / "y")


def test_images_that_were_loaded_are_not_read_again(tmp_path: Path) -> None:
    loaded = load_images([jpeg(tmp_path / "photo.jpg"), noise()])
    assert load_images(loaded) is loaded
    copied = load_image(loaded[1])
    assert copied is not loaded[1], "an image of the user's is copied: it may change"
