"""GranDf from miniatures of its four forms of training annotations, and of val and test."""

import numpy as np
import pytest
from small_data import HEIGHT, WIDTH, box_mask, compressed, document, picture, polygon, runs, whole_but

from dexar_fast.data import Phrase, read
from dexar_fast.errors import InputError

CAT, MAT = box_mask(1, 2, 5, 6), box_mask(6, 0, 9, 3)


def rle(mask):
    return {"size": list(mask.shape), "counts": compressed(runs(mask))}


def grounded(name="one.jpg", caption='"A cat on a mat."', cat=(2, 5)):
    groundings = {
        "cat": {"token_positives": list(cat), "rle_masks": [rle(CAT)]},
        "mat": {"token_positives": [11, 14], "rle_masks": [rle(MAT), rle(box_mask(0, 8, 2, 9))]},
    }
    return {"file_name": name, "height": HEIGHT, "width": WIDTH, "caption": caption, "groundings": groundings}


def train(root, file, content):
    return document(root / "GranDf" / "annotations" / "train" / file, content)


def test_human_captions(tmp_path):
    for name in ("one", "runs", "span", "bare"):
        picture(tmp_path / "GranDf" / "GranDf_HA_images" / "train" / f"{name}.jpg")
    broken_runs = grounded("runs.jpg")
    broken_runs["groundings"]["cat"]["rle_masks"] = [{"size": [HEIGHT, WIDTH], "counts": "1"}]
    bare = grounded("bare.jpg")
    bare["groundings"]["cat"]["rle_masks"] = []
    spoilt = [broken_runs, grounded("span.jpg", cat=(9, 99)), bare]
    content = [grounded(), grounded("gone.jpg"), *spoilt, {"caption": "?"}]
    train(tmp_path, "GranDf_HA_GCG_train.json", content)
    broken = {
        "gone": r"gone\.jpg is missing",
        "runs": "region 'cat' cannot be drawn: its runs do not add up",
        "span": "phrase 'cat' lies outside of its caption",
        "bare": "an object has no segmentation",
        "#5": "item '#5' lacks 'groundings'",
    }
    item = whole_but(read("grandf", tmp_path, split="train"), broken)["one"]
    assert item.answer == "A cat on a mat." and item.phrases == (Phrase(2, 5, (0,)), Phrase(11, 14, (1,)))
    assert [region.label for region in item.regions] == ["cat", "mat"]
    assert np.array_equal(item.masks(), [CAT, MAT | box_mask(0, 8, 2, 9)])


def test_openpsg_has_the_same_form_beside(tmp_path):
    picture(tmp_path / "coco_2017" / "train2017" / "one.jpg")
    train(tmp_path, "OpenPsgGCG_train.json", [grounded()])
    assert whole_but(read("grandf", tmp_path, split="train", part="openpsg"), {})["one"].answer == "A cat on a mat."


def test_refcocog_finds_its_phrases_in_the_caption(tmp_path):
    picture(tmp_path / "coco_2014" / "train2014" / "two.jpg")
    refs = [
        {"sentence": "a mat", "segmentation": [polygon(6, 0, 9, 3)]},
        {"sentence": "no such thing", "segmentation": [polygon(1, 2, 5, 6)]},
    ]
    train(tmp_path, "RefCOCOg_GCG_train.json", [{"img_file_name": "two.jpg", "caption": "Cat on A mat.", "refs": refs}])
    item = whole_but(read("grandf", tmp_path, split="train", part="refcocog"), {})["two"]
    assert item.phrases == (Phrase(7, 12, (0,)),) and np.array_equal(item.masks(), [MAT, CAT])


def test_flickr_has_its_captions_with_the_pictures(tmp_path):
    picture(tmp_path / "flikcr_30k" / "train" / "3.jpg")
    content = {
        "images": [{"id": 3, "file_name": "3.jpg", "caption": "A cat on a mat."}],
        "annotations": [{"image_id": 3, "tokens_positive": [[2, 5]], "sam_mask": rle(CAT)}, {"image_id": 8}],
    }
    train(tmp_path, "flickr_mergedGT_GCG_train.json", content)
    item = whole_but(read("grandf", tmp_path, split="train", part="flickr"), {"#1": "hold no picture 8"})["3"]
    assert item.regions[0].label == "cat" and item.phrases == (Phrase(2, 5, (0,)),)


def test_flickr_counts_from_the_caption_with_its_quotes(tmp_path):
    spans = {"3": [1, 6], "4": [10, 17], "5": [10, 99]}
    for name in spans:
        picture(tmp_path / "flikcr_30k" / "train" / f"{name}.jpg")
    content = {
        "images": [{"id": int(name), "file_name": f"{name}.jpg", "caption": '"A cat on a mat."'} for name in spans],
        "annotations": [
            {"image_id": int(name), "tokens_positive": [span], "sam_mask": rle(CAT)} for name, span in spans.items()
        ],
    }
    train(tmp_path, "flickr_mergedGT_GCG_train.json", content)
    found = read("grandf", tmp_path, split="train", part="flickr")
    items = whole_but(found, {"5": "phrase 'a mat.\"' lies outside of its caption"})
    for name, words in (("3", "A cat"), ("4", "a mat.")):
        (phrase,) = items[name].phrases
        assert items[name].answer == "A cat on a mat." and items[name].answer[phrase.start : phrase.stop] == words


def judged(root, captions, masks, split="val"):
    folder = root / "GranDf" / "annotations" / "val_test"
    document(folder / f"{split}_gcg_coco_caption_gt.json", {"images": [], "annotations": captions})
    document(folder / f"{split}_gcg_coco_mask_gt.json", {"images": [], "annotations": masks})


@pytest.mark.parametrize("split", ["val", "test"])
def test_val_and_test_take_labels_in_the_order_of_masks(tmp_path, split):
    for name in ("a1", "b2"):
        picture(tmp_path / "GranDf" / "GranDf_HA_images" / "val_test" / f"{name}.jpg")
    captions = [
        {"image_id": key, "caption": "A cat on a mat.", "labels": ["A cat", "a mat"]}
        for key in ("a1", "b2", "c3", "d4")
    ]
    masks = [{"image_id": key, "segmentation": rle(mask)} for mask in (CAT, MAT) for key in ("a1", "c3")]
    judged(
        tmp_path, captions, [*masks, {"image_id": "b2", "segmentation": rle(CAT)}, {"segmentation": rle(CAT)}], split
    )
    broken = {
        "b2": "picture b2 has 2 labels and 1 masks",
        "c3": r"c3\.jpg is missing",
        "d4": "hold no mask of picture d4",
        "#4": "annotation 5 has no image_id",
    }
    item = whole_but(read("grandf", tmp_path, split=split), broken)["a1"]
    assert item.phrases == (Phrase(0, 5, (0,)), Phrase(9, 14, (1,))) and np.array_equal(item.masks(), [CAT, MAT])


@pytest.mark.parametrize(
    ("caption", "labels", "starts"),
    [
        ("A woman and a man", ["woman", "man"], [2, 14]),
        ("A man and a man.", ["a man", "A man"], [0, 10]),
        (
            "A man beside another man",
            ["man", "man", "man"],
            [2, 21, 21],
        ),  # more masks than words: the last stands for all
        ("Two women", ["wom"], [4]),
        ("A (red) mat", [" (red) "], [2]),
        ("A cat", ["", "dog"], []),
    ],
)
def test_labels_are_whole_words_each_behind_the_one_before(tmp_path, caption, labels, starts):
    picture(tmp_path / "GranDf" / "GranDf_HA_images" / "val_test" / "a.jpg")
    masks = [{"image_id": "a", "segmentation": rle(CAT)} for _ in labels]
    judged(tmp_path, [{"image_id": "a", "caption": caption, "labels": labels}], masks)
    (item,) = read("grandf", tmp_path)
    assert [phrase.start for phrase in item.phrases] == starts


def test_what_is_missing_as_a_whole_is_named(tmp_path):
    with pytest.raises(
        InputError, match=r"missing .*val_gcg_coco_caption_gt\.json and .*mask_gt\.json and .*val_test$"
    ):
        read("grandf", tmp_path)
    with pytest.raises(InputError, match=r"missing .*OpenPsgGCG_train\.json and .*coco_2017/train2017$"):
        read("grandf", tmp_path, split="train", part="openpsg")
    for split, part in (("val", "flickr"), ("train", "nobody"), ("dev", "human")):
        with pytest.raises(InputError, match="split is val, test or train"):
            read("grandf", tmp_path, split=split, part=part)
