"""The files of EAGLE's scripts: their entries, their masks, read back; and files that are none."""

import json

import eagle_cases
import numpy as np
import pytest
import torch

from dexar_fast.errors import FileError, InputError
from dexar_fast.methods.cut import labels as regions
from dexar_fast.methods.eagle import files
from dexar_fast.methods.eagle.saliency import region_saliency

LABELS = eagle_cases.arrays()["qwen_rect6/labels"].astype(np.int32)
CASES = [name for name in eagle_cases.names() if name.startswith("qwen_rect6")]


@pytest.mark.parametrize("name", CASES)
def test_the_json_has_their_entries_and_numbers(name):
    case = eagle_cases.cases()[name]
    document = files.document_of(case.found, LABELS)
    assert set(document) == set(case["json_keys"].tolist())
    for key in ("insertion_score", "deletion_score", "insertion_word_score", "deletion_word_score", "smdl_score"):
        assert document[key] == case[key].tolist(), key
    for key in ("org_score", "baseline_score"):
        assert np.array_equal(np.float32(document[key]), case[key].astype(np.float32))
    assert np.allclose(document["region_area"], case["region_area"], rtol=0, atol=2e-7)
    assert document["sub-region_number"] == 6


def test_the_tails_entries_run_in_the_order_of_choosing():
    found = eagle_cases.cases()["qwen_rect6/sentence_eff_3_2_4"].found
    document = files.document_of(found, LABELS)
    assert found.tail == len(document["insertion_score_oppose"]) >= 2
    assert document["insertion_score_oppose"][:2] == document["insertion_score"][-2:-4:-1]
    assert document["region_area_oppose"][0] == document["region_area"][-2]


@pytest.mark.parametrize("name", CASES)
def test_what_was_written_reads_back(tmp_path, name):
    found = eagle_cases.cases()[name].found
    files.write(tmp_path / "slico-1.0-1.0-division-number-6", "cat", found, LABELS, {"words": ["a", "é"]})
    stored = files.read(tmp_path / "slico-1.0-1.0-division-number-6", "cat")
    for field in ("insertion", "deletion", "empty", "full"):
        assert torch.equal(getattr(stored.curves, field), getattr(found, field))
    assert torch.allclose(stored.curves.objective, found.objective, rtol=0, atol=3e-7)
    assert stored.curves.weights == found.weights and stored.curves.tail == found.tail
    assert stored.details == {"words": ["a", "é"]}
    assert np.array_equal(found.order.numpy()[stored.labels], LABELS)
    ours, theirs = region_saliency(found).numpy()[LABELS], region_saliency(stored.curves).numpy()[stored.labels]
    assert np.allclose(ours, theirs, rtol=0, atol=1e-5)


def test_the_masks_are_theirs(tmp_path):
    found = eagle_cases.cases()[CASES[0]].found
    files.write(tmp_path, "cat", found, LABELS)
    masks = np.load(tmp_path / "npy" / "cat.npy")
    assert masks.dtype == np.int64 and masks.shape == (6, *LABELS.shape, 1)
    for place, region in enumerate(found.order.tolist()):
        assert np.array_equal(masks[place, ..., 0], region == LABELS)


def test_a_video_has_its_frames_before_the_height(tmp_path):
    found, labels = eagle_cases.cases()[CASES[0]].found, regions.video_cells(2, 6, 7, 1, 3)
    files.write(tmp_path, "film", found, labels)
    assert np.load(tmp_path / "npy" / "film.npy").shape == (6, 2, 6, 7, 1)
    assert np.array_equal(found.order.numpy()[files.read(tmp_path, "film").labels], labels)


@pytest.fixture
def written(tmp_path):
    files.write(tmp_path, "cat", eagle_cases.cases()[CASES[0]].found, LABELS)
    return tmp_path


def edited(change):
    def spoil(folder):
        path = folder / "json" / "cat.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return spoil


def replaced(masks):
    return lambda folder: np.save(folder / "npy" / "cat.npy", masks)


def headed(text, data=b"", version=b"\x01\x00"):
    """An npy file with a header of any text."""
    header = text.encode().ljust(117) + b"\n"
    start = b"\x93NUMPY" + version + len(header).to_bytes(2, "little")
    return lambda folder: (folder / "npy" / "cat.npy").write_bytes(start + header + data)


def described(shape, kind="<i8"):
    return f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize("order", ["C", "F"])
def test_masks_lie_by_rows_or_by_columns(written, order):
    before, path = files.read(written, "cat").labels, written / "npy" / "cat.npy"
    np.save(path, np.asarray(np.load(path), order=order))
    assert np.array_equal(files.read(written, "cat").labels, before)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda folder: (folder / "json" / "cat.json").unlink(), "cat.json is not a file"),
        (lambda folder: (folder / "npy" / "cat.npy").unlink(), "cat.npy is not a file"),
        (lambda folder: (folder / "json" / "cat.json").write_text("[1"), "no result of EAGLE"),
        (lambda folder: (folder / "json" / "cat.json").write_text("[1]"), "no result of EAGLE"),
        (lambda folder: (folder / "npy" / "cat.npy").write_bytes(b"\x93NUMPY"), "no result of EAGLE"),
        (lambda folder: (folder / "npy" / "cat.npy").write_bytes(b""), "no result of EAGLE"),
        (lambda folder: (folder / "npy" / "cat.npy").write_bytes(b"PK\x03\x04"), "no result of EAGLE"),
        (headed(described((2**40, 2**20, 2**20, 1))), "of its header"),
        (headed(described((6, 4, 4, 1)), bytes(767)), "of its header"),
        (headed(described((6, 4, 4, 1)), bytes(769)), "of its header"),
        (headed(described((-6, -4, 4, 1)), bytes(768)), "no result of EAGLE"),
        (headed(described((0, 2**62, 2**62, 1))), "no result of EAGLE"),
        (headed(described((4, 1, 1, 1), "|O"), bytes(32)), "no result of EAGLE"),
        (headed(described((4, 1, 1, 1), "|V0")), "no result of EAGLE"),
        (headed("{'descr': (("), "no result of EAGLE"),
        (headed('{\'descr\': """'), "no result of EAGLE"),
        (headed("(" * 117), "no result of EAGLE"),
        (headed(described((1,)), version=b"\x09\x00"), "no result of EAGLE"),
        (edited(lambda document: document.pop("lambda1")), "lambda1"),
        (edited(lambda document: document.update(lambda1=float("nan"))), "lambda1"),
        (edited(lambda document: document.update(lambda2=10**400)), "lambda2"),
        (edited(lambda document: document.update(smdl_score=[10**400] * 6)), "no result of EAGLE"),
        (edited(lambda document: document.update(insertion_score_oppose=[0.5] * 6)), "differ in length"),
        (edited(lambda document: document.update(insertion_score_oppose=3)), "no result of EAGLE"),
        (edited(lambda document: document["smdl_score"].pop()), "differ in length"),
        (edited(lambda document: document.update(org_score=[[1.0]])), "org_score"),
        (edited(lambda document: document.update(baseline_score=["x"])), "no result of EAGLE"),
        (edited(lambda document: document.update(smdl_score=[float("nan")] * 6)), "smdl_score"),
        (replaced(np.ones((6, 4, 4, 1), np.int64)), "no partition"),
        (replaced(np.zeros((6, 4, 4, 1), np.int64)), "no partition"),
        (replaced(np.ones((6, 4, 4))), "masks are"),
        (replaced(np.ones((1, 4, 4, 1), np.int64)), "holds 1 regions"),
        (replaced(np.array([{}])), "no result of EAGLE"),
    ],
)
def test_files_that_are_none_are_named(written, spoil, said):
    spoil(written)
    with pytest.raises(FileError, match=said):
        files.read(written, "cat")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "json").write_text("")
    with pytest.raises(FileError, match="json"):
        files.write(tmp_path, "cat", eagle_cases.cases()[CASES[0]].found, LABELS)


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "../cat", 3, None])
def test_a_name_is_that_of_a_file_in_the_folder(written, name):
    with pytest.raises(InputError, match="without a folder"):
        files.read(written, name)
    with pytest.raises(InputError, match="without a folder"):
        files.write(written, name, eagle_cases.cases()[CASES[0]].found, LABELS)


@pytest.mark.parametrize("details", [{"words": {1}}, {"score": float("nan")}, {("a",): 1}, {"array": LABELS}, [1]])
def test_details_that_are_no_json_are_refused_before_a_file_is_written(tmp_path, details):
    with pytest.raises(InputError, match="details are no JSON"):
        files.write(tmp_path, "cat", eagle_cases.cases()[CASES[0]].found, LABELS, details)
    assert not any(tmp_path.iterdir())
