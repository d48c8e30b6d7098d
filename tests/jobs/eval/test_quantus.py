"""Quantus both ways: its metrics by name, and our maps as its `a_batch` and `explain_func`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dexar_fast import InputError, data
from dexar_fast.adapters.quantus import a_batch, explain_func
from dexar_fast.data import DataSet
from dexar_fast.jobs.eval.figures import figures
from dexar_fast.jobs.eval.measures import registry

quantus = pytest.importorskip("quantus")
NAMES = ("quantus:RelevanceMassAccuracy", "quantus:RelevanceRankAccuracy", "quantus:Sparseness", "quantus:Complexity")


def test_its_metrics_by_name(evaluated: Any) -> None:
    """Relevance mass is our EPG; rank accuracy, counted by hand; a uniform map is refused."""
    asked, records = evaluated("shapes:count=2,asked=one", methods=("attention",), metrics=("epg", *NAMES))
    mask = asked.data[0].masks().any(0)
    found = next(iter(records.values()))["methods"]
    parts = found["attention"]["parts"]
    assert parts["quantus:RelevanceMassAccuracy"] == pytest.approx(parts["epg"], rel=1e-4)
    assert 0 < parts["quantus:RelevanceRankAccuracy"][0] <= 1 and mask.any()
    assert found["uniform"]["skipped"][NAMES[0]].startswith("Quantus refuses")
    rows = {(each["metric"], each["method"]): each for each in figures(asked, records)["models"][0]["figures"]}
    assert rows["quantus:Complexity", "attention"]["better"] == "lower"
    assert rows["quantus:Sparseness", "attention"]["better"] == "higher"


def test_our_maps_as_its_batch(load: Any) -> None:
    explainer, items = load(""), list(data.of("shapes:count=2,asked=one"))
    explanations = [explainer.explain(item.image, item.question, item.answer) for item in items]
    found = a_batch(explanations)
    assert found.shape == (2, 1, 384, 384) and found.dtype == np.float32
    np.testing.assert_array_equal(found[1, 0], explanations[1].heatmap(resolution="image"))
    masks = np.stack([item.masks().any(0)[None] for item in items])
    metric = quantus.PointingGame(abs=False, normalise=False, disable_warnings=True)
    x = np.zeros((2, 3, 384, 384))
    scores = metric(model=None, x_batch=x, y_batch=np.zeros(2, int), a_batch=found, s_batch=masks)
    hits = [mask[0].ravel()[a.argmax()] for mask, a in zip(masks, found, strict=True)]
    assert [bool(score) for score in scores] == [bool(hit) for hit in hits]


def test_our_explainer_as_its_function(load: Any) -> None:
    """It explains the pictures that Quantus hands it, for the answers that the targets number."""
    explainer, (item, _) = load(""), data.of("shapes:count=2,asked=one")
    answers = ["A red circle.", item.answer]
    explain = explain_func(explainer, item.question, answers)
    picture = np.asarray(item.image)
    x = np.stack([picture, picture]).transpose(0, 3, 1, 2) / np.float32(255)
    found = explain(model=None, inputs=x, targets=np.array([1, 0]), device="cpu")
    for row, answer in zip(found, answers[::-1], strict=True):
        own = explainer.explain(item.image, item.question, answer).heatmap(resolution="image")
        np.testing.assert_allclose(row[0], own, atol=1e-4)
    metric = quantus.Sparseness(abs=False, normalise=False, disable_warnings=True)
    scores = metric(model=None, x_batch=x, y_batch=np.array([1, 0]), explain_func=explain)
    assert len(scores) == 2 and all(0 < score < 1 for score in scores)


def test_what_is_refused(load: Any) -> None:
    with pytest.raises(InputError, match="no explanation"):
        a_batch([])
    explain = explain_func(load(""), "What?", ["A."])
    with pytest.raises(InputError, match=r"\[B, 3, height, width\] in \[0, 1\]"):
        explain(model=None, inputs=np.full((1, 3, 8, 8), 255.0), targets=np.array([0]))
    with pytest.raises(InputError, match="targets number the 1 answers"):
        explain(model=None, inputs=np.zeros((1, 3, 8, 8)), targets=np.array([1]))


def test_a_metric_that_needs_a_classifier_is_refused() -> None:
    with pytest.raises(InputError, match="quantus:Selectivity is none of"):
        registry.of("quantus:Selectivity")


def test_void_pixels_do_not_count(evaluated: Any) -> None:
    """The left half of the picture is void; the metrics leave the map as it was for those behind them."""
    (item, _) = data.of("shapes:count=2,asked=one")
    half = replace(item, void=left_half)
    _, records = evaluated(
        DataSet("void", [half], lambda _, own: own, lambda own: own.id),
        methods=("attention",),
        metrics=("quantus:Complexity", "quantus:Sparseness", "epg", "pointing", *NAMES[:2], "quantus:PointingGame"),
    )
    parts = next(iter(records.values()))["methods"]["attention"]["parts"]
    own = item.masks().any(0)
    assert own[:, : own.shape[1] // 2].any() and own[:, own.shape[1] // 2 :].any()
    assert parts[NAMES[0]] == pytest.approx(parts["epg"], rel=1e-4)
    assert parts["quantus:PointingGame"] == parts["pointing"]


def left_half(height: int, width: int) -> Any:
    return np.broadcast_to(np.arange(width) < width // 2, (height, width))
