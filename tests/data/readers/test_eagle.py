"""EAGLE's lists from miniatures of their four forms: stored answers, told apart from their prompts."""

import numpy as np
import pytest
from small_data import box_mask, document, picture, polygon, whole_but

from dexar_fast.data import read
from dexar_fast.errors import InputError

PROMPT = [1, 32000, 32000, 32000, 13, 901]
ANSWER = [319, 6635, 338, 29889, 2]


def caption(image="000000000009.jpg", **more):
    return {
        "image_path": image,
        "gt_caption": ["A cat.", "It is a cat."],
        "generate_sentence": "A cat is.",
        "generated_ids": [PROMPT + ANSWER],
        "selected_interpretation_token_id": [0, 1, 2, 3, 4],
        "selected_interpretation_token_word_id": ANSWER,
        "words": ["A", "cat", "is", ".", ""],
        **more,
    }


@pytest.fixture
def pictures(tmp_path):
    for name in ("000000000009.jpg", "COCO_val2014_000000310196.jpg", "1.jpg"):
        picture(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def entries(pictures, content, **broken):
    path = document(pictures.parent / "list.json", content)
    return whole_but(read("eagle", path, images=pictures), broken)


def test_captions_target_every_token_of_the_answer(pictures):
    item = entries(pictures, [caption()])["000000000009"]
    assert item.answer_ids == tuple(ANSWER) and item.prompt_ids == tuple(PROMPT)
    assert item.targets == tuple(enumerate(ANSWER))
    assert item.answer == "A cat is." and item.references == ("A cat.", "It is a cat.") and item.question is None


def test_objects_target_one_token_and_have_a_region(pictures):
    entry = {
        "image_path": "000000000009.jpg",
        "gt_caption": "A cat.",
        "generate_sentence": "A cat is.",
        "generated_ids": PROMPT + ANSWER,
        "output_word_id": ANSWER,
        "select_category": "cat",
        "location": [1, 2, 5, 6],
        "segmentation": [polygon(1, 2, 5, 4)],
        "target_generated_index": 1,
        "target_generated_id": 6635,
        "target_generated_token": "\u2581cat",
    }
    item = entries(pictures, [entry])["000000000009"]
    assert item.targets == ((1, 6635),) and item.answer_ids == tuple(ANSWER) and item.references == ("A cat.",)
    assert item.regions[0].label == "cat" and item.regions[0].box == (1, 2, 5, 6)
    assert np.array_equal(item.masks(), [box_mask(1, 2, 5, 4)])


def test_repope_targets_the_opposite_word(pictures):
    image = "COCO_val2014_000000310196.jpg"
    entry = {
        "image_name": image,
        "question": "Is there a dog in the image?",
        "label": "no",
        "generate_sentence": "Yes",
        "generated_ids": [[*PROMPT, 3869, 2]],
        "selected_interpretation_token_id": [0],
        "selected_interpretation_token_word_id": [3869],
        "words": ["Yes", ""],
        "counter_word_id": [1939],
    }
    items = entries(pictures, [{**entry, "id": 1}, {**entry, "id": 7}])
    assert list(items) == ["COCO_val2014_000000310196_1", "COCO_val2014_000000310196_7"]
    item = items["COCO_val2014_000000310196_1"]
    assert item.targets == ((0, 1939),) and item.answer_ids == (3869, 2) and item.references == ("no",)
    assert item.question == "Is there a dog in the image?" and item.answer == "Yes"


def test_mmvp_takes_its_right_option_for_reference(pictures):
    entry = caption(question="Open or closed?", options=["Open", "Closed"], answer="b", question_id="1")
    entry["image_filename"] = "1.jpg"
    del entry["image_path"]
    item = entries(pictures, [entry])["1"]
    assert item.question == "Open or closed?" and item.references == ("Closed",) and item.answer == "A cat is."


def test_broken_entries_cost_one_item_each(pictures):
    content = [
        caption(),
        caption("gone.jpg"),
        caption("1.jpg", words=[]),
        caption("1.jpg", selected_interpretation_token_word_id=[319, 6635, 338, 29889, 3]),
        caption("1.jpg", selected_interpretation_token_id=[9]),
        {"words": []},
        3,
    ]
    broken = {
        "gone": r"gone\.jpg is missing",
        "1": "has 0 words of an answer and 11 ids",
        "1#3": "chooses ids that its answer does not hold",
        "1#4": "item '1#4' is broken",
        "#5": "lacks 'generated_ids'",
        "#6": "item '#6' is broken",
    }
    assert list(entries(pictures, content, **broken)) == ["000000000009"]


def test_what_is_missing_as_a_whole_is_named(tmp_path):
    with pytest.raises(InputError, match=r"eagle: missing .*list\.json and .*pictures$"):
        read("eagle", tmp_path / "list.json", images=str(tmp_path / "pictures"))
    with pytest.raises(InputError, match="eagle: images must be given"):
        read("eagle", tmp_path / "list.json")
