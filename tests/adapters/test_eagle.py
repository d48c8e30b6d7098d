"""Files for EAGLE's scripts: what these compute of them, re-written here, is what the curves say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dexar_fast import Explainer, InputError
from dexar_fast.adapters.eagle import write
from dexar_fast.cli.explain import SAMPLE_IMAGE
from dexar_fast.evaluation.curves import insertion_deletion
from dexar_fast.explanation import Explanation

QUESTION, ANSWER = "Which shape is yellow?", "The yellow shape is a circle."
FOLDER = "interpretation_results/dex-ar"


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


@pytest.fixture(scope="module")
def explanation(embedded: Explainer) -> Explanation:
    return embedded.explain(str(SAMPLE_IMAGE), QUESTION, ANSWER)


@pytest.fixture(scope="module")
def written(embedded: Explainer, explanation: Explanation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eagle") / FOLDER
    write(embedded, explanation, folder, "sample", details={"location": [135, 43, 224, 132]})
    return folder


def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "json" / "sample.json").read_text())


def trapezoid(y: np.ndarray, x: np.ndarray) -> float:
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def test_the_areas_of_its_script_are_those_of_the_curves(
    embedded: Explainer, explanation: Explanation, written: Path
) -> None:
    """Insertion begins at the last of the deletion, over 0 and the areas; deletion runs over what is left."""
    found, areas = document(written), insertion_deletion(embedded, explanation).areas
    shares = np.array([0, *found["region_area"]])
    insertion = np.array([found["deletion_score"][-1], *found["insertion_score"]])
    deletion = np.array([found["insertion_score"][-1], *found["deletion_score"]])
    assert trapezoid(insertion, shares) == pytest.approx(areas.insertion, rel=1e-5)
    assert -trapezoid(deletion, 1 - shares) == pytest.approx(areas.deletion, rel=1e-5)
    assert max(insertion) == pytest.approx(areas.highest, rel=1e-5) and areas.insertion > areas.deletion
    assert shares[-1] == 1 and len(shares) == 65 and "smdl_score" not in found
    assert (
        np.shape(found["insertion_word_score"]) == np.shape(found["deletion_word_score"]) == (64, len(found["words"]))
    )
    np.testing.assert_allclose(np.mean(found["insertion_word_score"], 1), found["insertion_score"])
    assert "".join(found["words"]).strip() == ANSWER
    assert found["selected_interpretation_token_word_id"] == explanation.token_ids.tolist()


def test_a_step_of_the_curve_is_a_forward_of_the_model(
    embedded: Explainer, explanation: Explanation, written: Path
) -> None:
    """The first 16 of 64 parts of the pixels, as its script takes them from the map, on black."""
    heat = np.load(written / "npy" / "sample.npy")
    assert heat.dtype == np.float32 and heat.shape == (384, 384) and 0 <= heat.min() < heat.max() <= 1
    np.testing.assert_array_equal(heat, explanation.heatmap(resolution="image"))
    shown = np.zeros(heat.size, bool)
    shown[np.argsort(-heat.ravel(), kind="stable")[: heat.size * 16 // 64]] = True
    picture = Image.fromarray(np.asarray(explanation.images[0]) * shown.reshape(*heat.shape, 1).astype(np.uint8))
    inputs = embedded.processor(images=picture, text=f"{explanation.metadata['prompt']}", return_tensors="pt")
    ids, prompt = explanation.token_ids, inputs["input_ids"].shape[1]
    whole = dict(inputs) | {"input_ids": torch.cat([inputs["input_ids"], ids[None]], 1)}
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    with torch.no_grad():
        rows = embedded.model(**whole).logits[0, prompt - 1 : -1].double().softmax(-1)
    expected = rows.gather(1, ids[:, None])[:, 0].mean()
    assert document(written)["insertion_score"][15] == pytest.approx(float(expected), abs=0.05)


def test_its_pointing_game_reads_map_and_box(written: Path) -> None:
    heat, (left, top, right, bottom) = np.load(written / "npy" / "sample.npy"), document(written)["location"]
    assert heat[top:bottom, left:right].max() == heat.max()


def test_what_is_refused(embedded: Explainer, explanation: Explanation, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="turn the sign of maps under IGOS_PP or TAM"):
        write(embedded, explanation, tmp_path / "baselines" / "TAM", "sample")
    with pytest.raises(InputError, match="name must be that of a picture"):
        write(embedded, explanation, tmp_path, "a/b")
    two = embedded.explain([str(SAMPLE_IMAGE)] * 2, "<image> <image> Which?", "A circle.")
    with pytest.raises(InputError, match="of one picture, and this explanation has 2"):
        write(embedded, two, tmp_path, "sample")
    assert not [*tmp_path.iterdir()]
