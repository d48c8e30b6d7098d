"""RefCOCO and its sisters from miniatures of the authors' pickles."""

import pickle

import numpy as np
import pytest
from small_data import box_mask, document, picture, polygon, whole_but

from dexar_fast.data import Phrase, read
from dexar_fast.errors import InputError

IMAGE = "COCO_train2014_000000581857.jpg"


def ref(ref_id, sentences, **more):
    return {
        "ref_id": ref_id,
        "ann_id": 100 + ref_id,
        "category_id": 1,
        "image_id": 581857,
        "file_name": "COCO_train2014_000000581857_16.jpg",
        "split": "val",
        "sentences": [{"sent_id": key, "sent": text, "raw": text, "tokens": text.split()} for key, text in sentences],
        **more,
    }


REFS = [ref(1, [(0, "the lady on the right"), (1, "woman")]), ref(2, [(2, "dog")], split="testA")]


def write(root, refs, name="refcoco", by="unc", pictures="images/mscoco/images/train2014"):
    picture(root / pictures / IMAGE)
    boxes = {101: [1, 2, 4, 4], 102: [0, 0, 3, 3]}
    document(
        root / name / "instances.json",
        {
            "images": [{"id": 581857, "file_name": IMAGE}, {"id": 5, "file_name": "gone.jpg"}, None],
            "annotations": [
                {"id": key, "bbox": box, "segmentation": [polygon(*box[:2], box[0] + box[2], box[1] + box[3])]}
                for key, box in boxes.items()
            ],
            "categories": [{"id": 1, "name": "person"}],
        },
    )
    (root / name / f"refs({by}).p").write_bytes(pickle.dumps(refs, protocol=2))
    return root


@pytest.mark.parametrize(
    ("name", "by"), [("refcoco", "unc"), ("refcoco", "google"), ("refcoco+", "unc"), ("refcocog", "umd")]
)
def test_an_expression_names_one_region(tmp_path, name, by):
    data = read(name, write(tmp_path, REFS, name, by), by=by)
    items = whole_but(data, {})
    assert data.ids == ["1_0", "1_1"]
    item = items["1_0"]
    assert item.answer == "the lady on the right" and item.phrases == (Phrase(0, 21, (0,)),)
    assert item.image.name == IMAGE
    assert item.regions[0].label == "person" and item.regions[0].box == (1, 2, 5, 6)
    assert np.array_equal(item.masks(), [box_mask(1, 2, 5, 6)])


def test_the_usual_split_of_each_needs_no_name(tmp_path):
    write(tmp_path, REFS)
    write(tmp_path, REFS, "refcocog", "umd")
    assert read("refcoco", tmp_path).ids == read("refcocog", tmp_path).ids == ["1_0", "1_1"]
    assert read("refcoco", tmp_path, split="testA").ids == ["2_2"]
    with pytest.raises(InputError, match="split must be one of testA, val, not 'testC'"):
        read("refcoco", tmp_path, split="testC")


def test_broken_references_cost_one_item_each(tmp_path):
    refs = [
        *REFS,
        ref(3, [(3, "a")]),
        ref(2, [(4, "b")], image_id=5),
        ref(2, [(5, "c")], image_id=6),
        ref(2, [(6, "d")], category_id=9),
        {"split": "val", "sentences": ["e"]},
    ]
    broken = {
        "3_3": "hold no annotation 103",
        "2_4": r"gone\.jpg is missing",
        "2_5": "hold no picture 6",
        "2_6": "hold no category 9",
        "#6": "record of item '#6' is broken",
    }
    write(tmp_path, refs, pictures="train2014")
    assert list(whole_but(read("refcoco", tmp_path), broken)) == ["1_0", "1_1"]


def test_a_pickle_that_names_code_is_refused_unread(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    write(tmp_path, [Trap()])
    with pytest.raises(InputError, match=r"refs\(unc\)\.p cannot be read: it names .*open, where plain data is due"):
        read("refcoco", tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02]q\x00(", pickle.dumps({"split": "val"}), pickle.dumps([{"split": 3}])]
)
def test_a_damaged_pickle_is_named(tmp_path, content):
    write(tmp_path, REFS)
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(content)
    with pytest.raises(InputError, match=r"refs\(unc\)\.p (cannot be read|is no list of references)"):
        read("refcoco", tmp_path)


def test_what_is_missing_as_a_whole_is_named(tmp_path):
    with pytest.raises(InputError, match=r"refcoco\+: missing .*refs\(unc\)\.p and .*instances\.json$"):
        read("refcoco+", tmp_path)
    write(tmp_path, REFS, pictures="elsewhere")
    with pytest.raises(InputError, match=r"missing .*images/mscoco/images/train2014 or .*train2014$"):
        read("refcoco", tmp_path)
