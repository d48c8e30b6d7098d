"""Questions and answers about the regions of a segmentation set."""

from functools import partial

import numpy as np
import pytest
from small_data import WIDTH, box_mask, picture, whole_but

from dexar_fast.data import DataSet, Item, Region, qa
from dexar_fast.errors import InputError


def region(label, *box):
    return Region(label, outline=partial(_mask, box))


def _mask(box, height, width):
    return box_mask(*box, height, width)


@pytest.fixture
def segmented(tmp_path):
    path = picture(tmp_path / "a.png")
    many = (
        region("cat", 0, 0, 3, 3),
        region("aeroplane", 5, 0, 9, 9),
        region("cat", 1, 5, 3, 7),
        region("dog", 12, 0, 13, 9),
    )
    sets = {"many": many, "one": (region("orange cat", 0, 0, WIDTH, 9),), "none": (), "gone": many}
    paths = {"gone": tmp_path / "gone.png"}
    records = list(sets.items())
    return DataSet(
        "seg", records, lambda name, row: Item(name, paths.get(name, path), regions=row[1]), lambda row: row[0]
    )


def test_only_the_items_that_are_asked_about_count():
    def made(*labels):
        items = [Item(str(index), regions=(region(label, 0, 0, 3, 3),)) for index, label in enumerate(labels)]
        return qa.of(DataSet("seg", items, lambda name, item: item, lambda item: item.id))

    first, other = made("cat", "dog"), made("cat", "cow")
    assert first.content([0, 2]) == other.content([0, 2]) and first.content([3]) != other.content([3])


@pytest.fixture
def asked(segmented):
    data = qa.of(segmented)
    kinds = ("what", "whether", "where")
    broken = {f"none/{kind}": "item 'none' has no region to ask about" for kind in kinds}
    broken |= {f"gone/{kind}": r"gone\.png is missing" for kind in kinds}
    assert data.name == "seg-qa" and len(data) == 12
    return whole_but(data, broken)


@pytest.mark.parametrize(
    ("name", "question", "answer", "phrases"),
    [
        (
            "many/what",
            "What is in the picture?",
            "There is a cat, an aeroplane and a dog in the picture.",
            {"cat": (0, 2), "aeroplane": (1,), "dog": (3,)},
        ),
        ("one/what", "What is in the picture?", "There is an orange cat in the picture.", {"orange cat": (0,)}),
        ("many/whether", "Is there a dog in the picture?", "Yes, there is a dog in the picture.", {"dog": (3,)}),
        (
            "many/where",
            "Where is the aeroplane?",
            "The aeroplane is in the middle of the picture.",
            {"aeroplane": (1,), "middle": (1,)},
        ),
        (
            "one/where",
            "Where is the orange cat?",
            "The orange cat is in the middle of the picture.",
            {"orange cat": (0,), "middle": (0,)},
        ),
    ],
)
def test_what_is_asked_and_which_words_are_visual(asked, name, question, answer, phrases):
    item = asked[name]
    assert (item.question, item.answer) == (question, answer)
    assert {answer[one.start : one.stop]: one.regions for one in item.phrases} == phrases


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [(0, 3, "on the left"), (4, 9, "in the middle"), (10, 13, "on the right"), (12, 13, "on the right")],
)
def test_where_an_object_lies(tmp_path, left, right, said):
    base = Item("a", picture(tmp_path / "a.png"), regions=(region("cat", left, 0, right, 4),))
    item = qa.of(DataSet("d", ["a"], lambda name, record: base, str))[2]
    assert item.answer == f"The cat is {said} of the picture."


def test_an_object_without_a_pixel_lies_nowhere(tmp_path):
    base = Item("a", picture(tmp_path / "a.png"), regions=(region("cat", 3, 3, 3, 3),))
    error = qa.of(DataSet("d", ["a"], lambda name, record: base, str))[2].error
    assert isinstance(error, InputError) and "has no pixel of 'cat'" in str(error)


def test_the_masks_of_the_picture_stay(asked, segmented):
    assert np.array_equal(asked["many/where"].masks(), segmented[0].masks())
