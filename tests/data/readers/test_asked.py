"""POPE, RePOPE and MMVP: short questions with one right answer."""

import pytest
from small_data import lines, picture, whole_but

from dexar_fast.data import read
from dexar_fast.errors import InputError

IMAGE = "COCO_val2014_000000310196.jpg"


def row(key, label="yes", image=IMAGE):
    return {"question_id": key, "image": image, "text": f"Is there a number {key} in the image?", "label": label}


@pytest.mark.parametrize(
    ("name", "folder"), [("pope", "output/coco"), ("pope", "."), ("repope", "annotations"), ("repope", ".")]
)
@pytest.mark.parametrize("split", ["random", "popular", "adversarial"])
def test_pope_and_its_correction(tmp_path, name, folder, split):
    picture(tmp_path / "val2014" / IMAGE)
    lines(tmp_path / folder / f"coco_{name}_{split}.json", row(1), row(3, "no"))
    data = read(name, tmp_path, split=split)
    items = whole_but(data, {})
    assert data.ids == ["1", "3"]
    assert items["3"].question == "Is there a number 3 in the image?" and items["3"].references == ("no",)
    assert items["1"].references == ("yes",) and items["1"].answer is None


def test_pictures_may_lie_elsewhere(tmp_path):
    picture(tmp_path / "coco" / "pictures" / IMAGE)
    path = lines(tmp_path / "coco_pope_random.json", row(1))
    assert whole_but(read("pope", tmp_path, images=str(tmp_path / "coco" / "pictures")), {})
    with pytest.raises(InputError, match=r"pope: missing .*val2014 or .*images$"):
        read("pope", tmp_path)
    with pytest.raises(InputError, match=r"pope: missing .*nowhere$"):
        read("pope", path.parent, images=tmp_path / "nowhere")


def test_broken_lines_cost_one_item_each(tmp_path):
    picture(tmp_path / "val2014" / IMAGE)
    lines(
        tmp_path / "coco_pope_random.json",
        row(1),
        '{"question_id": 2, "im',
        row(3, image="gone.jpg"),
        {"question_id": 4},
        "5",
    )
    broken = {
        "#1": r"line 2 of .*coco_pope_random\.json is not JSON",
        "3": r"gone\.jpg is missing",
        "4": "pope: the record of item '4' lacks 'image'",
        "#4": "pope: the record of item '#4' is broken",
    }
    assert list(whole_but(read("pope", tmp_path), broken)) == ["1"]


def test_a_list_in_place_of_lines_is_read(tmp_path):
    picture(tmp_path / "val2014" / IMAGE)
    lines(tmp_path / "coco_repope_random.json", [row(1), row(2)])
    assert read("repope", tmp_path).ids == ["1", "2"]


HEAD = "lndex,Question,Options,Correct Answer"  # so spelt in the published file


def questions(root, *rows, head=HEAD):
    root.mkdir(exist_ok=True)
    (root / "Questions.csv").write_text("\ufeff" + "\n".join([head, *rows]) + "\n", encoding="utf-8")
    return root


def test_mmvp_takes_the_picture_of_the_row(tmp_path):
    for index in (1, 2, 4):
        picture(tmp_path / "MMVP Images" / f"{index}.jpg")
    questions(
        tmp_path,
        '1,"Open, or closed?",(a) Open (b) Closed,(a)',
        "2,From where?,(a) Towards the camera (b)  Away from it ,(b)",
        "3,Where?,(a) Here (b) There,(a)",
        "4,Which?,(a) One (b) Two,(c)",
    )
    broken = {"3": r"3\.jpg is missing", "4": r"answers '\(c\)', which is none of its options"}
    items = whole_but(read("mmvp", tmp_path), broken)
    assert items["1"].question == "Open, or closed? (a) Open (b) Closed" and items["1"].references == ("Open", "(a)")
    assert items["2"].references == ("Away from it", "(b)") and items["2"].image.name == "2.jpg"


def test_mmvp_names_what_it_lacks(tmp_path):
    with pytest.raises(InputError, match=r"mmvp: missing .*Questions\.csv and .*MMVP Images$"):
        read("mmvp", tmp_path)
    questions(tmp_path, "1,2", head="Index,Question")
    picture(tmp_path / "MMVP Images" / "1.jpg")
    with pytest.raises(InputError, match=r"Questions\.csv lacks the column 'Options': it has Index, Question$"):
        read("mmvp", tmp_path)


def test_a_short_row_of_mmvp_costs_itself(tmp_path):
    for index in (1, 2):
        picture(tmp_path / "MMVP Images" / f"{index}.jpg")
    questions(tmp_path, "1,Where?", "2,Where?,(a) Here (b) There,(a)")
    assert list(whole_but(read("mmvp", tmp_path), {"1": "item '1' is broken"})) == ["2"]
