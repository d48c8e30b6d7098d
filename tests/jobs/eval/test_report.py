"""The tables and reports of made figures, word by word; and which cases are shown."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dexar_fast import data
from dexar_fast.data import DataSet, Item
from dexar_fast.jobs.eval import report, shown, tables
from dexar_fast.jobs.eval.figures import figures
from dexar_fast.jobs.eval.plan import Evaluation

SCORES = {"dex-ar": 3 * [0.9, 0.8, 0.7, 0.6], "tam": 3 * [0.5, 0.1, 0.4, 0.2]}
SCORES |= {name: 3 * [0.3, 0.2, 0.3, 0.2] for name in ("random-smooth", "centre", "uniform")}


@pytest.fixture
def asked() -> Evaluation:
    spelled = "shapes:count=12,asked=one"
    return Evaluation(data.of(spelled), spelled, methods=("dex-ar", "tam"), metrics=("epg", "deletion"))


@pytest.fixture
def records(asked: Evaluation) -> dict[str, Any]:
    """Twelve items; the last has no deletion by TAM."""
    found = {}
    for place, (_, _, key) in enumerate(asked.due()):
        parts = {name: {"epg": [scores[place]], "deletion": [1 - scores[place]]} for name, scores in SCORES.items()}
        methods = {name: {"parts": each} for name, each in parts.items()}
        found[key] = {"answer": "A.", "methods": methods}
    del parts["tam"]["deletion"]
    methods["tam"]["failed"] = {"deletion": "no | memory"}
    return found


def test_means_differences_and_n(asked: Evaluation, records: dict[str, Any]) -> None:
    found = figures(asked, records)["models"][0]
    rows = {(each["metric"], each["method"]): each for each in found["figures"]}
    assert rows["epg", "dex-ar"]["value"] == pytest.approx(0.75) and rows["epg", "dex-ar"]["n"] == 12
    assert rows["deletion", "tam"]["value"] == pytest.approx(1 - np.mean(SCORES["tam"][:-1]), rel=1e-5)
    assert rows["deletion", "tam"]["n"] == 11 and rows["deletion", "tam"]["fill"] == "black"
    pairs = {(each["metric"], each["method"], each["other"]): each for each in found["differences"]}
    assert len(pairs) == 2 * (1 + 2 * 3)
    pair = pairs["epg", "dex-ar", "tam"]
    assert pair["value"] == pytest.approx(0.45) and pair["p"] == pytest.approx(2 / 2**12, rel=1e-5)
    assert pairs["deletion", "dex-ar", "tam"]["n"] == 11
    (failed,) = found["failed"]
    assert failed == {"reason": "no | memory", "metrics": ["deletion"], "methods": ["tam"], "items": 1}


def test_questions_about_one_picture_count_as_one(asked: Evaluation, records: dict[str, Any]) -> None:
    """Three questions about each of four pictures: too few pictures for a mark, however many items."""
    four = Evaluation(data.of("shapes:count=4"), "shapes:count=4", asked.methods, ("epg",))
    shared = {key: next(iter(records.values())) for _, _, key in four.due()}
    found = figures(four, shared)["models"][0]
    assert {(each["n"], each["pictures"]) for each in found["figures"]} == {(len(four.data), 4)}
    assert tables.summary(found).rows[0] == ["dex-ar", "0.9"]
    assert figures(asked, records)["models"][0]["figures"][0]["pictures"] == 12


def test_the_summary_marks_what_is_above_every_chance_map(asked: Evaluation, records: dict[str, Any]) -> None:
    table = tables.summary(figures(asked, records)["models"][0])
    assert table.heads == ["method", "epg ↑", "deletion ↓ (fill: black)"]
    assert table.rows[:3] == [["dex-ar", "0.75*", "0.25*"], ["tam", "0.3", "0.691"], ["random-smooth", "0.25", "0.75"]]


def test_a_chance_map_that_a_metric_refuses_stands_in_no_mark_s_way(asked: Evaluation, records: dict[str, Any]) -> None:
    for record in records.values():
        del record["methods"]["uniform"]["parts"]["epg"]
        for name in ("random-smooth", "centre", "uniform"):
            record["methods"][name]["parts"].pop("deletion")
    table = tables.summary(figures(asked, records)["models"][0])
    assert table.rows[:2] == [["dex-ar", "0.75*", "0.25"], ["tam", "0.3", "0.691"]]
    assert "judged by those that they score" in table.about


def test_a_metric_s_table(asked: Evaluation, records: dict[str, Any]) -> None:
    table = next(tables.of_metrics(figures(asked, records)["models"][0], "dex-ar"))
    assert table.heads[3:] == ["minus dex-ar", "p", "minus random-smooth", "p"]
    first, second, *chance = table.rows
    assert first[:2] == ["dex-ar", "12"] and first[2].startswith("0.75 [") and first[3:5] == ["", ""]
    assert second[3].startswith("-0.45 [-0.") and second[4] == "0.000488"
    assert all(row[5:] == ["", ""] for row in chance)


def test_reports_hold_what_was_asked_and_what_failed(
    asked: Evaluation, records: dict[str, Any], tmp_path: Any, load: Any
) -> None:
    key = next(reversed(records))
    records[key] = {"error": "the picture <b>is</b> gone"}
    found = report.write(asked, records, tmp_path, load)
    text, page = (tmp_path / report.MARKDOWN).read_text(), (tmp_path / report.PAGE).read_text()
    for words in ("shapes:count=12,asked=one", "dex-ar, tam", "12 items, 1 of them broken", "Left out"):
        assert words in text and words in page
    assert sorted(os.listdir(tmp_path / report.CASES)) == [
        f"embedded-{kind}-{place}.png" for kind in ("best", "worst") for place in (1, 2, 3)
    ]
    assert page.count("data:image/png;base64,") == 6 and "&lt;b&gt;" in page and "<b>is" not in page
    assert report.failures(found) == [f"{key}: the picture <b>is</b> gone"]


def test_names_and_answers_may_hold_anything(evaluated: Any, tmp_path: Any, load: Any) -> None:
    """Bytes that are no text, lines, bars and markup."""
    names = ["bad\udcff.png", "<b>*a*\n|</b> `b` [c](d).png"]
    items = [Item(name, partial(Image.new, "RGB", (60, 50), "red"), "<i>?</i>", " A <s>.") for name in names]
    asked, records = evaluated(
        DataSet("odd", items, lambda _, item: item, lambda item: item.id), methods=("attention",), metrics=("blank",)
    )
    report.write(asked, records, tmp_path, load)
    text, page = (tmp_path / report.MARKDOWN).read_text(), (tmp_path / report.PAGE).read_text()
    for found in (text, page):
        assert "bad\\udcff.png" in found and "<b>" not in found and "<i>" not in found and "<s>" not in found
    assert "&lt;b>\\*a\\* \\|&lt;/b> \\`b\\` \\[c\\](d).png: &lt;i>?&lt;/i> A &lt;s>." in text


def test_failures_name_methods_and_metrics(asked: Evaluation, records: dict[str, Any]) -> None:
    assert report.failures(figures(asked, records)) == ["tam by deletion: 1 items: no | memory"]
    assert report.markdown(tables.left_out(figures(asked, records)["models"][0])).endswith(
        "| failed | deletion | tam | 1 | no \\| memory |"
    )


def test_the_best_and_the_worst(asked: Evaluation, records: dict[str, Any]) -> None:
    metric, found = shown.ranked(asked, records, "embedded")
    assert metric == "epg" and [(place, index) for place, index, _ in found] == [
        ("best-1", 0),
        ("best-2", 4),
        ("best-3", 8),
        ("worst-1", 11),
        ("worst-2", 7),
        ("worst-3", 3),
    ]
    for record in records.values():
        del record["methods"]["dex-ar"]["parts"]["epg"]
    assert shown.ranked(asked, records, "embedded")[0] == "deletion"
    for record in records.values():
        record["methods"]["dex-ar"] = {"failed": {"": "no"}}
    assert shown.ranked(asked, records, "embedded") == ("", [])


def test_cases_are_ranked_by_the_figure_of_their_item(asked: Evaluation, records: dict[str, Any]) -> None:
    """Of the ratio, parts [sum, number] of visual and of filler tokens: 6 / 2 over 1 / 1 is 3, the sum alone 6."""
    ratio = Evaluation(asked.data, asked.spelled, methods=asked.methods, metrics=("token-ratio",))
    for index, record in enumerate(records.values()):
        record["methods"]["dex-ar"]["parts"]["token-ratio"] = [6, 2, 1, 1] if index else [5, 1, 1, 1]
    metric, found = shown.ranked(ratio, records, "embedded")
    assert metric == "token-ratio" and found[0] == ("best-1", 0, 5.0) and found[1][2] == 3.0


def test_infinite_figures_keep_their_side(asked: Evaluation, records: dict[str, Any]) -> None:
    """Filler without any attribution: the ratio is infinite, above chance, and as far from itself as 0."""
    ratio = Evaluation(asked.data, asked.spelled, methods=asked.methods, metrics=("token-ratio",))
    for record in records.values():
        for name, each in record["methods"].items():
            each["parts"] = {"token-ratio": [1, 1, 0, 1] if name in asked.methods else [1, 1, 1, 1]}
    found = json.loads(json.dumps(figures(ratio, records)["models"][0], allow_nan=False))
    assert tables.summary(found).rows[:3] == [["dex-ar", "∞*"], ["tam", "∞*"], ["random-smooth", "1"]]
    first, second, chance, *_ = next(tables.of_metrics(found, "dex-ar")).rows
    assert second[3:] == ["0 [0, 0]", "1", "∞ [∞, ∞]", "0.000488"] and first[2] == "∞ [∞, ∞]"
    assert chance[3:5] == ["-∞ [-∞, -∞]", "0.000488"]


@pytest.mark.parametrize(
    "value, text",
    [("inf", "∞"), ("-inf", "-∞"), (-0.0, "0"), (12345.6, "12346"), (0.12345, "0.123"), (1, "1")],
)
def test_numbers(value: float | str, text: str) -> None:
    assert tables.number(value) == text
