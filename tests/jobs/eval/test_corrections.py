"""Corrections of wrong answers: what the right answer is, and chance maps over the same regions."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dexar_fast import data
from dexar_fast.data import DataSet, Item
from dexar_fast.data.shapes import draw_scene
from dexar_fast.jobs.eval.figures import figures
from dexar_fast.jobs.eval.measures import corrections, registry
from dexar_fast.jobs.eval.measures.base import SkippedError
from dexar_fast.methods import Eagle
from dexar_fast.methods.eagle.hallucination import diagnose, minimal_region
from dexar_fast.vision.regions import Regions

ITEM = Item("a", lambda: pytest.fail("not opened"), "Is there a cat?", references=("no",))
WRONG = 132  # the embedded model sees a red square there, and there is none
ABSENT = "Is there a red square?"


def case(shared: dict[Any, Any], **fields: Any) -> Any:
    """What the metrics read of a case."""
    kept: dict[Any, Any] = {}
    given = {"explainer": SimpleNamespace(method=Eagle()), "item": ITEM, "null": None, "seed": 0, **fields}
    return SimpleNamespace(
        once=lambda key, make: kept.setdefault(key, make()),
        once_for_all=lambda key, make: shared.setdefault(key, make()),
        shared=shared,
        **given,
    )


def parts(name: str, given: Any) -> list[float]:
    metric = registry.of(name)
    return list(metric.parts(given, metric.fill))


def test_what_is_asked_and_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        corrections, "diagnose", lambda *given: asked.append(given[2:4]) or SimpleNamespace(minimal_region=0.05)
    )
    monkeypatch.setattr(corrections.stored, "prompt", lambda explainer, ids: f"prompt of {ids}")
    monkeypatch.setattr(Item, "image", None)
    assert parts("amcr", case({})) == [0.05] and parts("csr", case({})) == [1.0]
    assert set(asked) == {("Is there a cat?", "No")}
    parts("amcr", case({}, item=replace(ITEM, references=("new York",), prompt_ids=(1, 2))))
    assert asked[-1] == ("prompt of (1, 2)", "New York")


def test_what_has_no_correction() -> None:
    for wrong, words in (
        (case({}, null="centre"), "'eagle', which has found none"),
        (case({}, explainer=SimpleNamespace(method=None)), "'eagle' alone"),
        (case({}, item=Item("a", question="Is there?")), "right answer"),
    ):
        with pytest.raises(SkippedError, match=words):
            parts("csr", wrong)


def test_chance_maps_order_the_regions_by_their_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three columns of regions; the centred map has its greatest mean in the middle one."""
    labels = np.arange(9, dtype=np.int32)[None].repeat(6, 0) // 3
    details = {"eagle": {"order": [2, 0, 1]}}
    explanation = SimpleNamespace(diagnostics=details, grids=[Regions(0, 0, labels)])
    asked: list[Any] = []
    monkeypatch.setattr(corrections, "minimal_region", lambda *given: asked.append(given[2]) or 0.5)
    shared = {corrections.KEY: (SimpleNamespace(explanation=explanation), Eagle())}
    assert parts("amcr", case(shared, null="centre")) == [0.5] and asked[0][0] == 1
    orders = set()
    for seed in range(40):
        parts("amcr", case(shared, null="uniform", seed=seed))
        parts("amcr", case(shared, null="random-smooth", seed=seed))
        orders |= {("uniform", *asked[-2]), ("random-smooth", *asked[-1])}
    assert len(orders) == 2 * 6 and all(sorted(each) == [0, 1, 2] for each in asked)
    shared[corrections.KEY] = (SimpleNamespace(explanation=None), Eagle())
    parts("amcr", case(shared, null="centre"))
    assert asked[-1] == []


def test_a_wrong_answer_beside_chance(evaluated: Any) -> None:
    """The embedded model's, and one that is right as it is: nothing need be hidden there, by any map."""
    wrong = Item("wrong", lambda: draw_scene(WRONG).image, ABSENT, references=("no",))
    right = data.of("shapes:count=1,asked=one")[0]
    items = [wrong, replace(right, id="right", answer=None)]
    given = DataSet("two", items, lambda _, item: item, lambda item: item.id)
    asked, records = evaluated(given, methods=("eagle:regions=9",), metrics=("amcr", "csr"))
    found = {key.split()[1]: record["methods"] for key, record in records.items()}
    methods = ("eagle:regions=9", "random-smooth", "centre", "uniform")
    assert {found["right"][name]["parts"]["amcr"][0] for name in methods} == {0.0}
    regions = [found["wrong"][name]["parts"]["amcr"][0] for name in methods]
    assert 0 < regions[0] <= min(regions[1:]) <= 1
    assert 9 * np.array(regions) == pytest.approx(np.round(9 * np.array(regions)), abs=1e-4)
    rows = {(each["method"], each["metric"]): each["n"] for each in figures(asked, records)["models"][0]["figures"]}
    assert rows == {(name, metric): 2 for name in methods for metric in ("amcr", "csr")}


def test_saying_nothing_is_no_right_answer(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the wrong answer's first token as the end of answers: it is as likely, so the same regions must go."""
    explainer, image, eagle = load(""), draw_scene(WRONG).image, Eagle(regions=9, variant="exact")
    spoken = diagnose(explainer, image, ABSENT, "No", eagle)
    assert spoken.explanation is not None
    first = int(spoken.explanation.token_ids[0])
    monkeypatch.setattr(explainer.model.generation_config, "eos_token_id", first)
    silent = diagnose(explainer, image, ABSENT, "No", eagle)
    assert silent.answer == "" and silent.token == 0 and silent.shown == spoken.shown is not None
    assert silent.minimal_region == spoken.minimal_region > 0
    assert silent.corrected is not None and silent.corrected.startswith(" No")
    assert silent.explanation is not None and silent.explanation.token_ids.tolist() == [first]
    order = spoken.explanation.diagnostics["eagle"]["order"]
    assert minimal_region(explainer, silent, order, eagle) == silent.minimal_region
