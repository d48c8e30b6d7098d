"""EVALUATION.md holds what the committed figures say, and its sentences turn where figures do."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from bench.evaluation import claims, command, page, runs
from bench.evaluation.reading import PLAIN, UNFILTERED, Figures
from dexar_fast.jobs.eval import chance_methods


def test_the_page_is_what_the_figures_give() -> None:
    assert page.PAGE.read_text() == page.written(page.read(command.FOLDER))


def test_files_of_figures_are_json_with_a_line_for_each() -> None:
    found = {"asked": {"n": None}, "models": [{"model": "m", "items": 1, "figures": [{"a": 1}, {"b": '"@x@"'}]}]}
    text = command.lines(found)
    assert json.loads(text) == found and '{"a": 1},\n{"b"' in text


def made(**values: dict[str, float]) -> Figures:
    """Figures by metric and method; an interval of a difference is .01 wide on both sides."""
    figures, differences = [], []
    for metric, of in values.items():
        about = {"metric": metric, "better": "higher", "fill": None, "about": "Of.", "n": 20}
        for method, value in of.items():
            null = method in chance_methods.NAMES
            figures.append({**about, "method": method, "null": null, "value": value, "low": value, "high": value})
        for one in of:
            for other in of:
                gap = of[one] - of[other]
                differences.append(
                    {"metric": metric, "method": one, "other": other, "n": 20, "value": gap, "p": 0.5}
                    | {"low": gap - 0.01, "high": gap + 0.01}
                )
    model = {"items": 20, "figures": figures, "differences": differences}
    return Figures({"models": [model], "versions": {}, "date": ""})


CHANCE = {"random-smooth": 0.2, "centre": 0.25, "uniform": 0.1}


def test_at_chance_is_what_does_not_beat_every_chance_map() -> None:
    found = made(epg={PLAIN: 0.4, "tam": 0.255, "attention": 0.22} | CHANCE)
    assert claims.at_chance(found, ["epg"]).endswith("- epg: `tam` and `attention`")
    assert "All methods" in claims.at_chance(made(epg={PLAIN: 0.4} | CHANCE), ["epg"])
    assert claims.at_chance(made(epg={PLAIN: 0.1} | CHANCE), ["epg"]).endswith("- epg: all methods")


def test_losses_name_the_best_and_all_that_are_better() -> None:
    found = made(epg={PLAIN: 0.3, "tam": 0.4, "attention": 0.5, "rollout": 0.305} | CHANCE)
    *_, row = claims.losses(found).splitlines()
    assert "| `attention` | 0.5 " in row and row.endswith("| `tam` and `attention` |")
    assert "In none" in claims.losses(made(epg={PLAIN: 0.3, "tam": 0.305} | CHANCE))


@pytest.mark.parametrize("without, verb", [(0.2, "raises"), (0.4, "lowers"), (0.305, "does not measurably change")])
def test_the_head_filter_is_said_to_do_what_it_does(without: float, verb: str) -> None:
    metrics = (*runs.OF_MAPS, *runs.OF_WORDS, *runs.OF_TOKENS)
    maps = made(**{metric: {PLAIN: 0.3, UNFILTERED: without} | CHANCE for metric in metrics})
    text = claims.head_filter(maps, maps)
    kind = {"raises": "helps in", "lowers": "hurts in"}.get(verb, "makes no difference that shows in")
    assert f"it {verb} EPG: {without:.3f} without it, 0.300 with it, 0.100 by chance" in text
    assert f"The head filter {kind} {', '.join(metrics)}." in text


def test_few_items_claim_nothing() -> None:
    found = made(epg={PLAIN: 0.3, "tam": 0.9} | CHANCE)
    few: Any = copy.deepcopy(found)
    for each in few.model["differences"]:
        each["n"] = 9
    assert found.beside_plain("epg", "tam") == "better" and few.beside_plain("epg", "tam") == "alike"
    assert found.above_chance("epg", "tam") and not few.above_chance("epg", "tam")


def test_the_published_figure_below_chance_is_named() -> None:
    text = claims.published(page.PUBLISHED)
    assert "`soft-iou` is at or below chance" in text and "iou by 10.88, epg by 2.51" in text


def test_the_runs_are_those_of_the_page() -> None:
    for name, scenes in runs.SCENES.items():
        asked = runs.asked(name)
        assert len(asked.chosen) == scenes and asked.methods[0] == (runs.EAGLE if name == "corrections" else PLAIN)
        pictures = {asked.data.ids[index].rsplit("-", 1)[0] for index in asked.chosen}
        assert len(pictures) == scenes
