"""Answers, masks and names in a second file count as part of the data, once a job asks which data these are."""

import pickle

import numpy as np
import pytest
from small_data import document, picture

from dexar_fast.data import content, read

IMAGES = [{"id": 7, "file_name": "a.jpg"}]
OBJECT = {"id": 5, "image_id": 7, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 2, 0, 2, 2]]}


def vqa(root, said):
    """VQAv2: the answers."""
    (root / "val2014").mkdir(exist_ok=True)
    asked = [{"question_id": 1, "image_id": 7, "question": "What?"}]
    document(root / "v2_OpenEndedQuestions_mscoco_val2014_questions.json", {"questions": asked})
    given = [{"question_id": 1, "multiple_choice_answer": said, "answers": []}]
    document(root / "v2_mscoco_val2014_annotations.json", {"annotations": given})
    return "vqav2"


def refcoco(root, said):
    """RefCOCO: the names of the categories."""
    (root / "train2014").mkdir(exist_ok=True)
    named = [{"id": 1, "name": said}]
    document(root / "refcoco" / "instances.json", {"images": IMAGES, "annotations": [OBJECT], "categories": named})
    sentences = [{"sent_id": 0, "sent": "it"}]
    ref = {"ref_id": 1, "ann_id": 5, "category_id": 1, "image_id": 7, "split": "val", "sentences": sentences}
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([ref], protocol=2))
    return "refcoco"


def coco(root, said):
    """COCO: the names of the categories."""
    (root / "val2017").mkdir(exist_ok=True)
    named = [{"id": 1, "name": said}]
    path = root / "annotations" / "instances_val2017.json"
    document(path, {"images": IMAGES, "annotations": [OBJECT], "categories": named})
    return "coco-instances"


def grandf(root, said):
    """GranDf: the masks."""
    (root / "GranDf" / "GranDf_HA_images" / "val_test").mkdir(parents=True, exist_ok=True)
    folder = root / "GranDf" / "annotations" / "val_test"
    captions = [{"image_id": 7, "caption": "It", "labels": ["It"]}]
    document(folder / "val_gcg_coco_caption_gt.json", {"annotations": captions})
    masks = [OBJECT | {"segmentation": [[0, 0, len(said), 0, 2, 2]]}]
    document(folder / "val_gcg_coco_mask_gt.json", {"annotations": masks})
    return "grandf"


def folders(root, said):
    """ImageNet: the names of the classes."""
    picture(root / "val" / "n01440764" / "a.JPEG")
    (root / "LOC_synset_mapping.txt").write_text(f"n01440764 {said}\n")
    return "imagenet"


def kaggle(root, said):
    (root / "ILSVRC" / "Data" / "CLS-LOC" / "val").mkdir(parents=True, exist_ok=True)
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\na,n01440764 0 0 5 6\n")
    (root / "LOC_synset_mapping.txt").write_text(f"n01440764 {said}\n")
    return "imagenet"


def devkit(root, said):
    io = pytest.importorskip("scipy.io")
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True, exist_ok=True)
    synsets = np.array([(1, said), (2, "dog")], dtype=[("ILSVRC2012_ID", object), ("words", object)])
    io.savemat(data / "meta.mat", {"synsets": synsets})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n")
    return "imagenet"


WRITTEN = [vqa, refcoco, coco, grandf, folders, kaggle, devkit]


@pytest.mark.parametrize("write", WRITTEN)
def test_what_is_read_beside_the_records_is_told(tmp_path, write):
    first = read(write(tmp_path, "cat"), tmp_path)
    told = first.content()
    if write is not devkit:  # scipy writes the time into its file
        assert read(write(tmp_path, "cat"), tmp_path).content() == told
    other = read(write(tmp_path, "a cow"), tmp_path)
    assert other.ids == first.ids and other.content() != told


@pytest.mark.parametrize("write", WRITTEN)
def test_nothing_is_told_before_a_job_asks(tmp_path, write, monkeypatch):
    asked = []
    monkeypatch.setattr(content, "of_file", asked.append)
    read(write(tmp_path, "cat"), tmp_path)
    assert asked == []
