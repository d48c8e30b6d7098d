"""ImageNet's validation pictures from miniatures of the three layouts in which people have them."""

import re

import numpy as np
import pytest
from small_data import picture, whole_but

from dexar_fast.data import read
from dexar_fast.errors import InputError, LibraryError

NAMES = "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"
FIRST, SECOND, THIRD = (f"ILSVRC2012_val_{index:08d}" for index in (1, 2, 3))


@pytest.fixture
def kaggle(tmp_path):
    for name in (FIRST, SECOND):
        picture(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val" / f"{name}.JPEG")
    (tmp_path / "LOC_synset_mapping.txt").write_text(NAMES)
    (tmp_path / "LOC_val_solution.csv").write_text(
        f"ImageId,PredictionString\n{FIRST},n01443537 1 2 3 4 \n"
        f"{SECOND},n01440764 0 0 5 6 n01440764 7 1 9 8 \n{THIRD},n01440764 0 0 5 6 \nILSVRC2012_val_00000004,\n"
    )
    return tmp_path


def test_kaggle_gives_names_and_boxes(kaggle):
    broken = {THIRD: rf"{THIRD}\.JPEG is missing", "ILSVRC2012_val_00000004": "has no class"}
    items = whole_but(read("imagenet", kaggle), broken)
    assert items[FIRST].references == ("goldfish", "Carassius auratus")
    assert [region.label for region in items[SECOND].regions] == ["tench", "tench"]
    assert items[SECOND].regions[1].box == (7, 1, 10, 9)
    assert items[FIRST].masks().sum() == 3 * 3


def test_kaggle_without_its_pictures_or_columns_is_refused(kaggle):
    (kaggle / "LOC_val_solution.csv").write_text("ImageId,Boxes\n")
    with pytest.raises(InputError, match="lacks the column 'PredictionString': it has ImageId, Boxes"):
        read("imagenet", kaggle)
    (kaggle / "LOC_synset_mapping.txt").unlink()
    (kaggle / "ILSVRC").rename(kaggle / "moved")
    with pytest.raises(InputError, match=r"missing .*CLS-LOC/val and .*LOC_synset_mapping\.txt"):
        read("imagenet", kaggle)


@pytest.mark.parametrize("below", ["val", "."])
def test_a_folder_for_each_class(tmp_path, below):
    picture(tmp_path / below / "n01440764" / f"{SECOND}.JPEG")
    picture(tmp_path / below / "n01443537" / f"{FIRST}.JPEG")
    (tmp_path / below / "n01443537" / f"{THIRD}.JPEG").write_bytes(b"")
    broken = {THIRD: "not an image"}
    assert whole_but(read("imagenet", tmp_path), broken)[FIRST].references == ("n01443537",)
    (tmp_path / "LOC_synset_mapping.txt").write_text(NAMES)
    assert whole_but(read("imagenet", tmp_path), broken)[SECOND].references == ("tench", "Tinca tinca")


def test_a_folder_without_any_of_them_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no n01440764/\*\.JPEG"):
        read("imagenet", tmp_path)


@pytest.fixture
def devkit(tmp_path):
    io = pytest.importorskip("scipy.io")
    for name in (FIRST, SECOND):
        picture(tmp_path / "val" / f"{name}.JPEG")
    data = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    synsets = np.array(
        [(1, "n02119789", "kit fox, Vulpes macrotis"), (2, "n02100735", "English setter")],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)],
    )
    io.savemat(data / "meta.mat", {"synsets": synsets})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n2\n7\n")
    picture(tmp_path / "val" / "ILSVRC2012_val_00000004.JPEG")
    return tmp_path


def test_the_devkit_of_the_authors(devkit):
    broken = {THIRD: "is missing", "ILSVRC2012_val_00000004": "no class 7"}
    items = whole_but(read("imagenet", devkit), broken)
    assert items[FIRST].references == ("English setter",)
    assert items[SECOND].references == ("kit fox", "Vulpes macrotis")


def test_a_devkit_that_is_damaged_or_needs_scipy(devkit, monkeypatch):
    (devkit / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").write_bytes(b"no matrix")
    with pytest.raises(InputError, match=r"meta\.mat cannot be read"):
        read("imagenet", devkit)
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(LibraryError, match=re.escape("pip install scipy")):
        read("imagenet", devkit)
