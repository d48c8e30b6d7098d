"""COCO's captions and instances, and VQAv2 over its pictures."""

import numpy as np
import pytest
from small_data import HEIGHT, WIDTH, box_mask, compressed, document, picture, polygon, runs, whole_but

from dexar_fast.data import read
from dexar_fast.errors import InputError

IMAGES = [{"id": key, "file_name": f"{key:012d}.jpg", "height": HEIGHT, "width": WIDTH} for key in (9, 4, 25, 30)]
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 3}]


def annotation(image, category=1, segmentation=None, **more):
    shape = [polygon(1, 2, 5, 6)] if segmentation is None else segmentation
    return {"image_id": image, "category_id": category, "bbox": [1, 2, 4, 4], "segmentation": shape, **more}


@pytest.fixture
def root(tmp_path):
    for key in (9, 4):
        picture(tmp_path / "val2017" / f"{key:012d}.jpg")
    return tmp_path


def write(root, kind, annotations, **more):
    content = {"images": IMAGES, "annotations": annotations, "categories": CATEGORIES, **more}
    return document(root / "annotations" / f"{kind}_val2017.json", content)


def test_captions_are_references_in_their_order(root):
    said = [(9, "A dog. "), (4, "Two cats."), (9, "One dog."), (25, "Gone.")]
    write(root, "captions", [{"image_id": key, "id": index, "caption": text} for index, (key, text) in enumerate(said)])
    items = whole_but(read("coco-captions", root), {"25": r"000000000025\.jpg is missing"})
    assert items["9"].references == ("A dog.", "One dog.") and items["4"].references == ("Two cats.",)
    assert items["9"].image == root / "val2017" / "000000000009.jpg"


def test_objects_are_regions_and_crowds_are_void(root):
    crowd, dog = box_mask(6, 0, 9, 3), box_mask(0, 3, 4, 9)
    size = [HEIGHT, WIDTH]
    write(
        root,
        "instances",
        [
            annotation(9, iscrowd=0),
            annotation(9, 18, {"size": size, "counts": compressed(runs(dog))}),
            annotation(9, 18, {"size": size, "counts": runs(crowd)}, iscrowd=1),
            annotation(9, 1, {"size": size, "counts": runs(box_mask(12, 8, 13, 9))}, iscrowd=1),
            annotation(4, segmentation=[polygon(0, 0, 2, 2), polygon(4, 4, 6, 6)]),
        ],
    )
    items = whole_but(read("coco-instances", root), {})
    assert list(items) == ["9", "4"]
    assert [(region.label, region.box) for region in items["9"].regions] == [
        ("person", (1, 2, 5, 6)),
        ("dog", (1, 2, 5, 6)),
    ]
    assert np.array_equal(items["9"].masks(), [box_mask(1, 2, 5, 6), dog])
    assert np.array_equal(items["9"].ignored(), crowd | box_mask(12, 8, 13, 9))
    assert np.array_equal(items["4"].masks()[0], box_mask(0, 0, 2, 2) | box_mask(4, 4, 6, 6))


def test_broken_annotations_cost_one_item_each(root):
    for key in (25, 30):
        picture(root / "val2017" / f"{key:012d}.jpg")
    write(
        root,
        "instances",
        [
            annotation(9),
            annotation(4, segmentation=[]),
            annotation(25, 99),
            annotation(30, 3),
            {"category_id": 1},
            annotation(77),
            annotation([9]),
            5,
        ],
        images=[*IMAGES, {"file_name": "x.jpg"}, 7],
    )
    broken = {
        "4": r"'\[\]' is no segmentation",
        "25": "hold no category 99",
        "30": "hold no category 3",
        "#4": "hold no picture 77",
        "#5": "annotation 4 has no image_id",
        "#6": "annotation 6 has no image_id",
        "#7": "annotation 7 has no image_id",
    }
    assert list(whole_but(read("coco-instances", root), broken)) == ["9"]


def test_what_is_missing_as_a_whole_is_named(root):
    with pytest.raises(InputError, match=r"coco-captions: missing .*captions_val2017\.json$"):
        read("coco-captions", root)
    path = write(root, "captions", [])
    with pytest.raises(InputError, match=r"coco-captions: missing .*captions_train2017\.json and .*train2017$"):
        read("coco-captions", root, split="train2017")
    document(path, {"images": []})
    with pytest.raises(InputError, match="holds no list 'annotations'"):
        read("coco-captions", root)
    path.write_text('{"images": [')
    with pytest.raises(InputError, match=r"captions_val2017\.json is not JSON"):
        read("coco-captions", root)
    path.write_text("[1]")
    with pytest.raises(InputError, match="holds a list where a dict is due"):
        read("coco-captions", root)


@pytest.fixture
def asked(tmp_path):
    for key in (9, 4):
        picture(tmp_path / "val2014" / f"COCO_val2014_{key:012d}.jpg")
    questions = [(9, 90, "How many dogs?"), (9, 91, "Is it day?"), (4, 40, "Who?"), (5, 50, "Where?"), (4, 41, "Why?")]
    document(
        tmp_path / "v2_OpenEndedQuestions_mscoco_val2014_questions.json",
        {
            "questions": [{"image_id": i, "question_id": q, "question": t} for i, q, t in questions]
            + [{"question": "?"}]
        },
    )
    answers = [
        {
            "question_id": q,
            "image_id": 9,
            "multiple_choice_answer": "2",
            "answers": [{"answer": a} for a in ("two", "2", "two")],
        }
        for q in (91, 90, 50)
    ]
    document(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": [*answers, {"question_id": 41}, None]})
    return tmp_path


def test_vqa_joins_questions_and_answers(asked):
    broken = {
        "40": "hold no answer to question 40",
        "50": r"COCO_val2014_000000000005\.jpg is missing",
        "41": "item '41' lacks 'multiple_choice_answer'",
        "#5": "item '#5' lacks 'question_id'",
    }
    items = whole_but(read("vqav2", asked), broken)
    assert list(items) == ["90", "91"]
    assert items["90"].question == "How many dogs?" and items["90"].references == ("2", "two")
    assert items["90"].image == items["91"].image


def test_vqa_names_each_file_that_it_lacks(tmp_path):
    with pytest.raises(InputError, match=r"missing .*questions\.json and .*annotations\.json and .*val2014$"):
        read("vqav2", tmp_path)
