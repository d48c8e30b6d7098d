"""Items are opened late, and a broken one stays alone; masks have the picture's size."""

import pickle
from functools import partial

import numpy as np
import pytest
from PIL import ExifTags, Image
from small_data import HEIGHT, WIDTH, box_mask, damaged, picture

from dexar_fast.data import DataSet, Item, Region
from dexar_fast.errors import ImageError, InputError
from dexar_fast.vision.images import load_image


def make(name, record):
    return Item(name, record["path"], record["question"])


def name_of(record):
    return record["id"]


def refuse(*_):
    raise AssertionError("it was opened")


def test_nothing_is_opened_before_it_is_asked_for():
    item = Item("a", refuse, regions=(Region("b", outline=refuse),))
    data = DataSet("d", ["a"], lambda name, record: item, str)
    assert data.ids == ["a"] and data[0] is item
    for ask in (lambda: item.image, item.masks):
        with pytest.raises(InputError, match="it was opened"):
            ask()


def test_a_broken_record_is_an_item_with_its_error(tmp_path):
    records = [{"id": 1, "path": tmp_path, "question": "q"}, {"id": 2, "path": tmp_path}, InputError("line 3"), 4]
    data = DataSet("small", records, make, name_of)
    assert data.ids == ["1", "2", "#2", "#3"]
    assert [item.question for item in data] == ["q", None, None, None]
    assert [item.error is None for item in data] == [True, False, False, False]
    assert str(data[1].error) == "small: the record of item '2' lacks 'question'"
    assert str(data[2].error) == "line 3"
    assert "small: the record of item '#3' is broken" in str(data[3].error)


def test_a_data_set_is_a_sequence_that_pickles(tmp_path):
    data = DataSet("d", [{"id": i, "path": tmp_path, "question": str(i)} for i in range(5)], make, name_of)
    again = pickle.loads(pickle.dumps(data))
    assert again.ids == data.ids and list(again) == list(data)
    assert [item.id for item in data[1:4:2]] == ["1", "3"] and data[-1].id == "4"
    with pytest.raises(IndexError):
        data[5]


def test_ids_are_distinct():
    data = DataSet("d", ["a", "b", "a", "a"], lambda name, record: Item(name), str)
    assert data.ids == ["a", "b", "a#2", "a#3"]


def test_image_is_the_path_of_a_file_or_the_picture(tmp_path):
    path = picture(tmp_path / "a.png")
    assert Item("a", path).image == path
    made = Item("b", partial(Image.new, "RGB", (3, 2))).image
    assert isinstance(made, Image.Image) and made.size == (3, 2)


def test_masks_are_stacked_and_a_box_holds_the_pixels_whose_centre_it_covers(tmp_path):
    item = Item(
        "a",
        picture(tmp_path / "a.png"),
        regions=(Region("box", (1.4, 2.5, 4.5, 7)), Region("mask", outline=lambda h, w: box_mask(0, 0, 3, 3, h, w))),
        void=lambda height, width: box_mask(5, 5, 6, 6, height, width),
    )
    assert np.array_equal(item.masks(), [box_mask(1, 2, 4, 7), box_mask(0, 0, 3, 3)])
    assert np.array_equal(item.ignored(), box_mask(5, 5, 6, 6))
    assert item.checked() is item


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("path", [True, False])
def test_masks_turn_with_a_picture_that_exif_turns(tmp_path, orientation, path):
    """A picture that is white in the region and black elsewhere is so once Pillow has turned it upright, too."""
    mask = box_mask(1, 2, 7, 4)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(np.uint8(255 * mask)).save(tmp_path / "a.png", exif=exif)
    opened = tmp_path / "a.png" if path else partial(Image.open, tmp_path / "a.png")
    item = Item("a", opened, regions=(Region("b", outline=lambda h, w: mask),), void=lambda h, w: ~mask)
    upright = np.asarray(load_image(item.image).convert("L")) > 0
    assert np.array_equal(item.masks(), upright[None]) and np.array_equal(item.ignored(), ~upright)
    bare = Item("a", opened)
    assert bare.masks().shape == (0, *upright.shape) and bare.ignored().shape == upright.shape


def test_without_regions_masks_are_empty(tmp_path):
    item = Item("a", picture(tmp_path / "a.png"))
    assert item.masks().shape == (0, HEIGHT, WIDTH) and not item.ignored().any()


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Region("b"), "region 'b' cannot be drawn: it has neither outline nor box"),
        (Region("b", outline=lambda h, w: np.ones((w, h), bool)), "region 'b' is 9 x 13 pixels, the picture 13 x 9"),
    ],
)
def test_a_mask_that_cannot_be_had_is_the_items_error(tmp_path, region, message):
    checked = Item("a", picture(tmp_path / "a.png"), regions=(region,)).checked()
    assert message in str(checked.error)
    with pytest.raises(InputError, match="region 'b'"):
        checked.masks()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "a.jpg is missing"),
        (lambda path: path.mkdir(), "a.jpg is no file"),
        (lambda path: path.write_bytes(b"text"), "a.jpg is not an image that Pillow can read"),
        (damaged, "a.jpg cannot be read"),
    ],
)
def test_what_is_wrong_with_a_picture_is_named(tmp_path, write, message):
    write(tmp_path / "a.jpg")
    checked = Item("a", tmp_path / "a.jpg").checked()
    assert isinstance(checked.error, ImageError) and message in str(checked.error)
