"""EAGLE through models: the authors' own runs, the regions that a model sees, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from dexar_fast import Explainer, InputError
from dexar_fast.explanation import Explanation
from dexar_fast.methods.cut.divided import divided
from dexar_fast.methods.cut.seen import seen_by
from dexar_fast.methods.eagle.method import Eagle
from dexar_fast.vision.grid import Grid
from dexar_fast.vision.regions import Regions

REFERENCE = Path(__file__).parent / "reference"
PROMPT = "Describe the image."
ANSWER = " A red circle."


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    with np.load(REFERENCE / "qwen.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def qwen() -> tuple[Any, Any]:
    folder = REFERENCE / "qwen_tiny"
    processor = SimpleNamespace(
        image_processor=AutoImageProcessor.from_pretrained(folder), tokenizer=AutoTokenizer.from_pretrained(folder)
    )
    return AutoModelForImageTextToText.from_pretrained(folder), processor


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def found_by(qwen: tuple[Any, Any], theirs: dict[str, Any], case: str) -> Explanation:
    model, processor = qwen
    knobs: dict[str, Any] = {"variant": "exact"}
    if "eff" in case:
        scope, pending, refresh = map(int, case.split("_")[-3:])
        knobs = {"variant": "efficient", "scope": scope, "pending": pending, "refresh": refresh}
    method = Eagle(
        labels=theirs["labels"],
        tokens=theirs[f"{case}/token_index"].tolist(),
        ids=theirs[f"{case}/token_id"].tolist(),
        batch=7,
        **knobs,
    )
    image = Image.fromarray(theirs["image_rgb"])
    prompt = torch.from_numpy(theirs["prompt_ids"])[None]
    inputs = dict(processor.image_processor([image], return_tensors="pt")) | {"input_ids": prompt}
    inputs["attention_mask"] = torch.ones_like(prompt)
    inputs["mm_token_type_ids"] = (prompt == model.config.image_token_id).long()
    return Explainer(model, processor, method=method).explain_inputs(inputs, theirs["answer_ids"], images=image)


@pytest.mark.parametrize(
    "case", ["sentence_exact", "sentence_eff_6_4_15", "sentence_eff_3_2_4", "word1_exact", "counter0_exact"]
)
def test_the_authors_own_runs(qwen: tuple[Any, Any], theirs: dict[str, Any], case: str) -> None:
    found = found_by(qwen, theirs, case)
    details = found.diagnostics["eagle"]
    names = {"insertion": "insertion_word_score", "deletion": "deletion_word_score", "full": "org_score"}
    for ours, name in (names | {"empty": "baseline_score", "perception": "word_saliency"}).items():
        np.testing.assert_allclose(details[ours], theirs[f"{case}/{name}"], rtol=1e-4, atol=1e-6)
    order = theirs[f"{case}/order"]
    assert details["order"] == order.tolist()
    assert details["forwards"] <= theirs[f"{case}/n_calls"]
    values = theirs[f"{case}/saliency_values"]
    expected = (values - values.min()) / np.ptp(values)
    by_region = np.empty_like(expected)
    by_region[order] = expected
    np.testing.assert_allclose(found.sequence_map, by_region, atol=1e-4)
    chosen = theirs[f"{case}/token_index"].tolist()
    others = sorted({*range(len(found))} - {*chosen})
    assert not found.token_maps[others].any() and not found.token_weights[others].any()
    np.testing.assert_allclose(found.token_weights[chosen], theirs[f"{case}/word_saliency"], atol=1e-6)
    assert found.diagnostics["notes"][0].startswith("The maps are not of the answer's own words")


def asked(embedded: Explainer, image: Image.Image, **knobs: Any) -> Explanation:
    knobs = {"regions": 4} | knobs
    return Explainer(embedded.model, embedded.processor, method=Eagle(**knobs)).explain(image, PROMPT, ANSWER)


def test_a_saved_result_holds_its_regions(embedded: Explainer, tmp_path: Path) -> None:
    found = asked(embedded, picture(40, 40))
    found.save(tmp_path / "eagle.safetensors")
    loaded = Explanation.load(tmp_path / "eagle.safetensors")
    assert torch.equal(loaded.token_maps, found.token_maps)
    assert np.array_equal(loaded.grids[0].labels, found.grids[0].labels)
    assert np.array_equal(loaded.heatmap(resolution="image"), found.heatmap(resolution="image"))
    assert loaded.to_dict()["grids"][0]["labels"] == found.grids[0].labels.tolist()
    assert "4 regions" in repr(loaded)


def test_what_the_model_does_not_see_has_no_rank(embedded: Explainer) -> None:
    """A processor that crops the middle square: the sides of a wide picture are lost."""
    processor = copy.deepcopy(embedded.processor)
    settings = {"size": {"shortest_edge": 96}, "crop_size": {"height": 96, "width": 96}, "do_center_crop": True}
    vars(processor.image_processor).update(settings)
    cropping = Explainer(embedded.model, processor)
    labels = np.zeros((32, 96), np.int32)
    labels[:, 32:48], labels[:, 48:64], labels[:, 64:] = 1, 2, 3
    found = asked(cropping, picture(96, 32), labels=labels)
    assert found.diagnostics["eagle"]["unseen_regions"] == [0, 3]
    assert sorted(found.diagnostics["eagle"]["order"]) == [1, 2]
    assert found.sequence_map[[0, 3]].tolist() == [0, 0]
    np.testing.assert_allclose(found.diagnostics["eagle"]["areas"][-1], 1 / 3)


@pytest.mark.parametrize("regions", [1, 2, 3])
@pytest.mark.parametrize("variant", ["exact", "efficient"])
def test_few_regions(embedded: Explainer, regions: int, variant: str) -> None:
    labels = np.arange(30, dtype=np.int32)[None].repeat(30, 0) * regions // 30
    found = asked(embedded, picture(30, 30), labels=labels, variant=variant)
    assert sorted(found.diagnostics["eagle"]["order"]) == [*range(regions)]
    assert found.sequence_map.isfinite().all() and found.token_maps.isfinite().all()


@pytest.mark.parametrize("segmentation", ["grid", "slico", "slic"])
def test_regions_partition_the_picture(segmentation: str) -> None:
    cut = divided([picture(37, 53)], (), 9, segmentation, None, "black")
    labels = cut.labels[0]
    assert labels.shape == (53, 37)
    assert sorted({*labels.ravel().tolist()}) == [*range(cut.count)]
    np.testing.assert_allclose(cut.areas.sum(), 1)


def test_patches_end_where_visual_tokens_end() -> None:
    """A grid of 6 x 6 tokens over the middle square of a wide picture, in 3 x 3 patches and what is outside."""
    grid = Grid(image=0, start=0, rows=6, columns=6, box=(30.0, 0.0, 90.0, 60.0))
    labels = divided([picture(120, 60)], (grid,), 9, "grid", None, "black").labels[0]
    assert labels.max() == 9 and (labels[:, :30] == 9).all() and (labels[:, 90:] == 9).all()
    expected = (np.arange(60) // 20)[:, None] * 3 + np.arange(60) // 20
    assert np.array_equal(labels[:, 30:90], expected)


def test_hidden_pictures_show_their_fill() -> None:
    image = picture(8, 6)
    cut = divided([image, image], (), 2, "grid", None, "mean")
    assert cut.count == 4
    first, second = (np.asarray(each) for each in cut.shown(torch.tensor([True, True, False, True])))
    assert np.array_equal(first, np.asarray(image))
    mean = np.asarray(image).reshape(-1, 3).mean(0).round()
    assert (second[cut.labels[1] == 2] == mean).all()
    assert np.array_equal(second[cut.labels[1] == 3], np.asarray(image)[cut.labels[1] == 3])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"segmentation": "voronoi"}, "segmentation is one of 'grid', 'slico', 'slic'"),
        ({"fill": "white"}, "fill is one of"),
        ({"variant": "greedy"}, "variant is one of"),
        ({"labels": np.zeros((3, 3), int)}, r"one map for each picture, \[\[20, 20\]\], not \[\[3, 3\]\]"),
        ({"labels": np.zeros((20, 20))}, "labels are whole numbers, not float64"),
        ({"tokens": [9]}, "tokens .9. must name tokens of the answer, 0 to 3"),
        ({"tokens": [0, -4]}, r"tokens \[0, 0\] name a token twice"),
        ({"tokens": [10**30]}, "must name tokens of the answer"),
        ({"tokens": [0], "ids": [10**30]}, "ids must be those of words of the model"),
        ({"tokens": []}, "must name tokens of the answer"),
        ({"tokens": [0], "ids": [1, 2]}, "ids must be one for each of the 1 tokens, not 2"),
        ({"tokens": [0], "ids": [10**6]}, "ids must be those of words of the model"),
        ({"lambda1": -1}, "lambda1 is a finite number"),
    ],
)
def test_knobs_that_mean_nothing_are_refused(embedded: Explainer, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        asked(embedded, picture(20, 20), **knobs)


def test_labels_are_a_map_or_a_list_of_maps_in_lists_or_arrays() -> None:
    labels = np.arange(12).reshape(3, 4) // 2
    for given in (labels, labels.tolist(), [labels], [labels.tolist()], (labels,), torch.from_numpy(labels)):
        assert np.array_equal(divided([picture(4, 3)], (), 9, "grid", given, "black").labels, [labels])
    other = labels.T
    for given in ([labels, other], [labels.tolist(), other.tolist()]):
        one, two = divided([picture(4, 3), picture(3, 4)], (), 9, "grid", given, "black").labels
        assert np.array_equal(one, labels) and np.array_equal(two, other + 6)


def test_without_the_picture_nothing_can_be_hidden(qwen: tuple[Any, Any], theirs: dict[str, Any]) -> None:
    model, processor = qwen
    image = Image.fromarray(theirs["image_rgb"])
    ids = torch.from_numpy(theirs["prompt_ids"])[None]
    inputs = dict(processor.image_processor([image], return_tensors="pt")) | {"input_ids": ids}
    with pytest.raises(InputError, match="takes the picture and the model's processor"):
        Explainer(model, processor, method=Eagle()).explain_inputs(inputs, theirs["answer_ids"])


def test_without_grids_the_pixels_tell_what_is_seen() -> None:
    cut = divided([picture(9, 4)], (), 3, "grid", None, "black")

    def left_part(pictures: Any) -> dict[str, torch.Tensor]:
        return {"pixel_values": torch.from_numpy(np.asarray(pictures[0])[:, :5])}

    expected = sorted({*cut.labels[0][:, :5].ravel().tolist()})
    assert 0 < len(expected) < cut.count
    assert seen_by(cut, (), left_part).tolist() == expected
    with pytest.raises(InputError, match="sees none of the regions"):
        seen_by(cut, (), lambda pictures: {"pixel_values": torch.zeros(3)})


def test_the_report_says_which_word_stands_in_the_place_of_which(embedded: Explainer) -> None:
    other = embedded.processor.tokenizer(" blue", add_special_tokens=False)["input_ids"][-1:]
    found = asked(embedded, picture(20, 20), tokens=[1], ids=other, regions=np.int64(4))
    assert found.diagnostics["notes"][0].endswith("in their place: 'blue' for 'red'.")
    assert found.metadata["settings"]["regions"] == 4
    assert "place" not in asked(embedded, picture(20, 20)).diagnostics["notes"][0].split(":")[0]


@pytest.mark.parametrize("regions", [4, 400])
def test_labels_are_saved_in_bytes_where_these_suffice(tmp_path: Path, regions: int) -> None:
    labels = (np.arange(40 * 50, dtype=np.int32) * regions // 2000).reshape(40, 50)
    maps = torch.rand(1, regions)
    empty = torch.zeros(1, 0, 0)
    found = Explanation(
        token_ids=torch.tensor([1]),
        tokens=["a"],
        visual_positions=torch.arange(regions),
        visual_scores=empty,
        text_scores=empty,
        head_weights=empty,
        token_weights=torch.ones(1),
        token_maps=maps,
        unfiltered_token_maps=maps,
        sequence_map=maps[0],
        unfiltered_sequence_map=maps[0],
        grids=(Regions(0, 0, labels),),
        diagnostics={},
        metadata={},
    )
    found.save(tmp_path / "regions")
    (loaded,) = Explanation.load(tmp_path / "regions").grids
    assert np.array_equal(loaded.labels, labels) and loaded.labels.dtype == np.int32
    with safe_open(tmp_path / "regions", "pt") as file:
        assert file.get_tensor("regions_0").dtype == (torch.uint8 if regions < 256 else torch.int32)
