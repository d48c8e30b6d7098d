"""A model that Quantus' metrics of faithfulness and robustness can ask: its logits, and metrics of Quantus itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dexar_fast import Explainer, InputError
from dexar_fast.adapters.quantus import AnswerModel, a_batch, explain_func
from dexar_fast.cli.explain import SAMPLE_IMAGE

QUESTION, ANSWERS = "Which shape is yellow?", ["The yellow shape is a circle.", "The yellow shape is a square."]
SIDE = 96


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """The sample, and its left half on grey: the yellow circle is hidden there."""
    sample = np.asarray(Image.open(SAMPLE_IMAGE).convert("RGB").resize((SIDE, SIDE))) / np.float32(255)
    covered = sample.copy()
    covered[:, SIDE // 2 :] = 0.5
    return np.stack([sample, covered]).transpose(0, 3, 1, 2)


def one_by_one(explainer: Explainer, picture: np.ndarray, answer: str) -> float:
    """The log-probability of an answer from a forward of the model itself, in float64."""
    processor, shown = explainer.processor, Image.fromarray((picture.transpose(1, 2, 0) * 255).round().astype(np.uint8))
    prompt = f"USER: <image>\n{QUESTION} ASSISTANT:"
    inputs = processor(images=shown, text=f"{prompt} {answer}", return_tensors="pt")
    start = processor(images=shown, text=prompt, return_tensors="pt")["input_ids"].shape[1]
    with torch.no_grad():
        found = explainer.model(**inputs).logits[0].double().log_softmax(-1)
    ids = inputs["input_ids"][0, start:]
    return float(found[start - 1 : -1].gather(1, ids[:, None]).sum())


def test_its_logits_are_the_log_probabilities_of_the_answers(embedded: Explainer, x: np.ndarray) -> None:
    found = AnswerModel(embedded, QUESTION, ANSWERS)(torch.from_numpy(x))
    expected = [[one_by_one(embedded, picture, answer) for answer in ANSWERS] for picture in x]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert found[0].argmax() == 0 and found[0, 0] > found[1, 0]
    assert not [*AnswerModel(embedded, QUESTION, ANSWERS).parameters()]


def test_a_metric_of_faithfulness_asks_it(embedded: Explainer, x: np.ndarray) -> None:
    """Quantus draws values of pixels, blackens them and correlates: the same by hand, from its own draws."""
    quantus = pytest.importorskip("quantus")
    explanations = [embedded.explain(Image.fromarray((x[0].transpose(1, 2, 0) * 255).astype(np.uint8)), QUESTION)]
    maps, asked = a_batch(explanations), []

    class Recorded(AnswerModel):
        def forward(self, x: Any) -> torch.Tensor:
            asked.append(np.array(x))
            return super().forward(x)

    metric = quantus.FaithfulnessCorrelation(
        nr_runs=6, subset_size=3 * SIDE * SIDE // 4, abs=False, normalise=False, disable_warnings=True
    )
    np.random.seed(0)
    call = {"x_batch": x[:1], "y_batch": np.zeros(1, int), "a_batch": maps, "device": "cpu", "softmax": False}
    (score,) = metric(model=Recorded(embedded, QUESTION, ANSWERS), **call)
    assert len(asked) == 7 and -1 <= score <= 1
    logits = AnswerModel(embedded, QUESTION, ANSWERS)(np.concatenate(asked))[:, 0].numpy()
    hidden = [one[0] != x[0] for one in asked[1:]]
    assert all(0.2 < each.mean() <= 0.25 for each in hidden)
    sums = [(maps[0] * each).sum(dtype=np.float64) for each in hidden]
    assert score == pytest.approx(np.corrcoef(sums, logits[0] - logits[1:])[0, 1], abs=0.02)


def test_a_metric_of_robustness_explains_noisy_pictures(embedded: Explainer, x: np.ndarray) -> None:
    quantus = pytest.importorskip("quantus")
    metric = quantus.MaxSensitivity(nr_samples=2, lower_bound=0.1, abs=False, normalise=False, disable_warnings=True)
    explain = explain_func(embedded, QUESTION, ANSWERS)
    model = AnswerModel(embedded, QUESTION, ANSWERS)
    scores = metric(model=model, x_batch=x[:1], y_batch=np.zeros(1, int), explain_func=explain, device="cpu")
    assert len(scores) == 1 and 0 < scores[0] < 10


def test_what_is_refused(embedded: Explainer) -> None:
    model = AnswerModel(embedded, QUESTION, ANSWERS)
    with pytest.raises(InputError, match=r"\[B, 3, height, width\]"):
        model(torch.zeros(3, 8, 8))
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        model(torch.full((1, 3, 8, 8), 255.0))
