"""PascalVOC 2012 from a miniature VOCdevkit."""

import numpy as np
import pytest
from PIL import Image
from small_data import HEIGHT, WIDTH, box_mask, damaged, picture, whole_but

from dexar_fast.data import read
from dexar_fast.errors import InputError


@pytest.fixture
def devkit(tmp_path):
    home = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2007_000033", "2007_000042"):
        picture(home / "JPEGImages" / f"{name}.jpg")
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[1:4, 2:6], labels[5:8, 2:9], labels[4], labels[:, 0] = 8, 15, 255, 255
    marked(home, "2007_000033", labels)
    marked(home, "2007_000042", np.zeros((HEIGHT, WIDTH), np.uint8))
    (home / "ImageSets" / "Segmentation").mkdir(parents=True)
    (home / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000033\n2007_000042\n\n")
    return tmp_path


def marked(home, name, labels):
    (home / "SegmentationClass").mkdir(exist_ok=True)
    image = Image.fromarray(labels).convert("P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    image.putdata(labels.ravel().tolist())
    image.save(home / "SegmentationClass" / f"{name}.png")


@pytest.mark.parametrize("below", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_classes_are_regions_and_borders_are_void(devkit, below):
    data = read("voc", devkit / below)
    items = whole_but(data, {})
    assert data.ids == ["2007_000033", "2007_000042"]
    item = items["2007_000033"]
    assert [region.label for region in item.regions] == ["cat", "person"]
    assert np.array_equal(item.masks(), [box_mask(2, 1, 6, 4), box_mask(2, 5, 9, 8)])
    assert np.array_equal(item.ignored(), box_mask(0, 4, WIDTH, 5) | box_mask(0, 0, 1, HEIGHT))
    assert items["2007_000042"].regions == () and item.question is None and item.answer is None


def test_broken_and_missing_files_cost_one_item_each(devkit):
    home = devkit / "VOCdevkit" / "VOC2012"
    names = ["2007_000033", "gone", "unmarked", "torn", "torn_mask", "coloured", "other_size", "no_class"]
    for name in names[2:]:
        picture(home / "JPEGImages" / f"{name}.jpg")
        marked(home, name, np.full((HEIGHT, WIDTH), 8, np.uint8))
    marked(home, "gone", np.full((HEIGHT, WIDTH), 8, np.uint8))
    (home / "SegmentationClass" / "unmarked.png").unlink()
    damaged(home / "JPEGImages" / "torn.jpg")
    damaged(home / "SegmentationClass" / "torn_mask.png")
    picture(home / "SegmentationClass" / "coloured.png")
    marked(home, "other_size", np.full((HEIGHT, WIDTH + 1), 8, np.uint8))
    marked(home, "no_class", np.full((HEIGHT, WIDTH), 77, np.uint8))
    (home / "ImageSets" / "Segmentation" / "val.txt").write_text("\n".join(names))
    broken = {
        "gone": r"gone\.jpg is missing",
        "unmarked": r"unmarked\.png is missing",
        "torn": r"torn\.jpg cannot be read",
        "torn_mask": r"torn_mask\.png cannot be read",
        "coloured": r"coloured\.png has mode RGB where labels are due",
        "other_size": "region 'cat' is 14 x 9 pixels, the picture 13 x 9",
        "no_class": r"no_class\.png holds the label 77, which is no class",
    }
    assert list(whole_but(read("voc", devkit), broken)) == ["2007_000033"]


def test_what_is_missing_as_a_whole_is_named(devkit):
    with pytest.raises(InputError, match=r"voc: missing .*test\.txt$"):
        read("voc", devkit, split="test")
    with pytest.raises(InputError, match=r"voc: missing .*ImageSets or .*VOC2012/ImageSets"):
        read("voc", devkit / "nowhere")
    (devkit / "VOCdevkit" / "VOC2012" / "JPEGImages").rename(devkit / "moved")
    with pytest.raises(InputError, match=r"voc: missing .*JPEGImages$"):
        read("voc", devkit)
