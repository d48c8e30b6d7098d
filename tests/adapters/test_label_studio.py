"""Tasks for Label Studio, read back by its own SDK: the config, the prediction, the brushes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_llava
import torch

from dexar_fast import Explainer, Explanation, InputError
from dexar_fast.adapters.label_studio import CONFIG, STEPS, task

pytest.importorskip("label_studio_sdk")
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface

TOKENIZER = small_llava.byte_level()
ADDRESS = "/data/local-files/?d=pictures/noise.png"


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    explainer = Explainer(small_llava.model(TOKENIZER), small_llava.processor(TOKENIZER))
    return explainer.explain(small_llava.noise().resize((45, 33)), "Describe the image.", "the cat is é on it")


def regions(explanation: Explanation, kind: str) -> list[dict[str, Any]]:
    return [each for each in task(explanation, ADDRESS)["predictions"][0]["result"] if each["type"] == kind]


def test_their_sdk_finds_it_valid(explanation: Explanation) -> None:
    made = json.loads(json.dumps(task(explanation, ADDRESS)))
    interface = LabelInterface(CONFIG)
    interface.validate()
    assert interface.validate_prediction(made["predictions"][0], return_errors=True) == []
    assert interface.validate_task({"data": made["data"]})
    assert made["data"] == {"image": ADDRESS, "question": "Describe the image.", "answer": explanation.text}
    assert made["predictions"][0]["model_version"] == "dexar_fast dex-ar"


def test_the_brushes_are_the_maps(explanation: Explanation) -> None:
    """As their decoder reads them: to half a step."""
    answer, *tokens = regions(explanation, "brushlabels")
    wanted = [None, *(n for n, token in enumerate(explanation.tokens) if token)]
    assert len(tokens) == len(wanted) - 1
    for found, n in zip((answer, *tokens), wanted, strict=True):
        assert (found["original_width"], found["original_height"]) == (45, 33)
        pixels = decode_rle(found["value"]["rle"]).reshape(33, 45, 4)
        heat = explanation.heatmap(n, resolution="image")
        assert (pixels == pixels[..., :1]).all()
        np.testing.assert_allclose(pixels[..., 3] / 255, heat, atol=0.5 / STEPS + 1e-6)
        assert len(np.unique(pixels)) > 3


def test_the_words_are_the_tokens(explanation: Explanation) -> None:
    """By their characters, and scored by weight; each leads to its map."""
    words, brushes = regions(explanation, "labels"), regions(explanation, "brushlabels")
    shown = [n for n, token in enumerate(explanation.tokens) if token]
    assert (
        len(shown) < len(explanation) == len(explanation.tokens)
    )  # é is two tokens of bytes, and one has its character
    for word, n in zip(words, shown, strict=True):
        value = word["value"]
        assert explanation.text[value["start"] : value["end"]] == value["text"] == explanation.tokens[n]
        assert word["score"] == pytest.approx(float(explanation.token_weights[n] / explanation.token_weights.max()))
    links = [(each["from_id"], each["to_id"]) for each in regions(explanation, "relation")]
    assert links == [(word["id"], brush["id"]) for word, brush in zip(words, brushes[1:], strict=True)]


def test_their_converter_writes_what_was_accepted(explanation: Explanation, tmp_path: Path) -> None:
    """A prediction that somebody accepted as an annotation, exported as NumPy arrays."""
    made = task(explanation, ADDRESS)
    accepted = [{"id": 1, "completed_by": 1, "result": made["predictions"][0]["result"]}]
    (tmp_path / "tasks.json").write_text(json.dumps([{"id": 1, "data": made["data"], "annotations": accepted}]))
    converter = Converter(CONFIG, str(tmp_path))
    (tmp_path / "out").mkdir()
    converter.convert(str(tmp_path / "tasks.json"), str(tmp_path / "out"), "BRUSH_TO_NUMPY", is_dir=False)
    arrays = {path.stem: np.load(path) for path in (tmp_path / "out").rglob("*.npy")}
    (answer,) = [array for name, array in arrays.items() if "-answer-" in name]
    np.testing.assert_allclose(answer / 255, explanation.heatmap(resolution="image"), atol=0.5 / STEPS + 1e-6)
    assert len(arrays) == len(regions(explanation, "brushlabels"))


def test_an_answer_without_weight_scores_zero(explanation: Explanation) -> None:
    fields = {name: getattr(explanation, name) for name in explanation.__dataclass_fields__}
    weightless = Explanation(**fields | {"token_weights": torch.zeros_like(explanation.token_weights)})
    assert {word["score"] for word in regions(weightless, "labels")} == {0.0}


def test_what_is_refused(explanation: Explanation) -> None:
    with pytest.raises(InputError, match="picture is the address"):
        task(explanation, None)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        task(explanation, ADDRESS, image=1)
    fields = {name: getattr(explanation, name) for name in explanation.__dataclass_fields__}
    with pytest.raises(InputError):
        task(Explanation(**fields | {"images": ()}), ADDRESS)
