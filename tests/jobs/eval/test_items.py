"""Evaluations of single items: metrics against the functions that users call, chance lines, and what is left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from small_data import damaged, lines, picture
from stored_answers import stored_list

from dexar_fast import InputError, data
from dexar_fast.data import DataSet, Item
from dexar_fast.evaluation.curves import insertion_deletion, perturbation
from dexar_fast.evaluation.occlusion import agreement
from dexar_fast.jobs import stored
from dexar_fast.jobs.eval import chance_methods, shown
from dexar_fast.jobs.eval.figures import figures
from dexar_fast.jobs.eval.items import Asking, Measuring
from dexar_fast.jobs.eval.measures import forwards, registry
from dexar_fast.jobs.eval.measures.words import f1, ratio
from dexar_fast.jobs.eval.plan import Evaluation
from dexar_fast.metrics import activation, maps, segmentation, thresholds, tokens

DATA = "shapes:count=2,asked=one"


def one(records: dict[str, Any]) -> dict[str, Any]:
    return next(iter(records.values()))


def of_items(name: str, items: list[Item]) -> DataSet:
    return DataSet(name, items, lambda _, item: item, lambda item: item.id)


def test_maps_are_scored_as_by_hand(evaluated: Any, load: Any) -> None:
    """The grid of the map, min-max normalised and upsampled; the mask of all objects, and those of words."""
    asked, records = evaluated(DATA, methods=("dex-ar",), metrics=("epg", "iou", "word-epg", "token-ratio"))
    item, record = asked.data[0], one(records)
    e = load("").explain(item.image, item.question, item.answer)
    mask = item.masks().any(0)
    parts = record["methods"]["dex-ar"]["parts"]
    a = maps.prepared(e.sequence_map.numpy().reshape(12, 12), *mask.shape)
    assert parts["epg"] == pytest.approx([segmentation.energy_inside(a, mask)], rel=1e-3)
    assert parts["iou"] == pytest.approx([thresholds.best_iou(a, mask)], abs=5e-3)
    words, visual = [], np.zeros(len(e), bool)
    for phrase in item.phrases:
        (token,) = [t for t, text in enumerate(e.tokens) if text.strip() == item.answer[phrase.start : phrase.stop]]
        visual[token] = True
        a = maps.prepared(e.token_maps[token].numpy().reshape(12, 12), *mask.shape)
        words.append(segmentation.energy_inside(a, item.masks()[list(phrase.regions)].any(0)))
    assert parts["word-epg"] == pytest.approx([np.mean(words)], rel=1e-3)
    given = (e.token_weights * e.token_maps.sum(1)).numpy()
    assert ratio(np.array(parts["token-ratio"])) == pytest.approx(tokens.token_filter_ratio(given, visual), rel=1e-3)


def test_a_ratio_of_many_items_is_that_of_all_tokens_together() -> None:
    """Attributions [.1, .9, .6, .2] with the middle two visual, and [3, 1] with the first: 1.5 / (1.3 / 3)."""
    means = np.mean([[1.5, 2, 0.3, 2], [3, 1, 1, 1]], 0)
    together = tokens.token_filter_ratio([0.1, 0.9, 0.6, 0.2, 3, 1], np.array([0, 1, 1, 0, 1, 0], bool))
    assert ratio(means) == pytest.approx(together) == pytest.approx(1.5 / (1.3 / 3))
    assert ratio(np.array([0, 1.0, 0, 1])) == 1 and ratio(np.array([1, 1.0, 0, 1])) == np.inf
    assert f1(np.array([0.25, 0.75])) == pytest.approx(activation.f1_iou(0.25, 0.75)) and f1(np.zeros(2)) == 0


def test_hiding_is_that_of_the_functions_for_one_explanation(
    evaluated: Any, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwards, "insertion_deletion", partial(insertion_deletion, steps=4))
    names = ("perturbation-positive", "perturbation-negative", "insertion", "deletion:fill=blur", "occlusion-rank")
    asked, records = evaluated("shapes:count=1,asked=one", methods=("attention",), metrics=names)
    item, parts = asked.data[0], one(records)["methods"]["attention"]["parts"]
    own = load("").with_method("attention")
    e, seed = own.explain(item.image, item.question, item.answer), chance_methods.seed_of(0, item.id)
    curves = perturbation(own, e, seed=seed)
    found = [parts[name][0] for name in names]
    expected = [
        curves.positive_area,
        curves.negative_area,
        insertion_deletion(own, e, seed=seed, steps=4).areas.insertion,
        insertion_deletion(own, e, seed=seed, steps=4, fill="blur").areas.deletion,
        agreement(own, e).rank_correlation,
    ]
    assert found == pytest.approx(expected, rel=1e-3)


def test_chance_maps_reach_their_chance_line(evaluated: Any) -> None:
    """A uniform map scores the masks' share, a random smooth one about that, and none of them is marked."""
    names = ("epg", "snr", "soft-iou", "pointing", "token-ratio")
    asked, records = evaluated("shapes:count=40,asked=one", methods=("random",), metrics=names)
    found = figures(asked, records)["models"][0]
    rows = {(each["method"], each["metric"]): each for each in found["figures"]}
    share = np.mean([item.masks().any(0).mean() for item in asked.data])
    for name in ("epg", "soft-iou", "pointing"):
        assert rows["uniform", name]["value"] == pytest.approx(share, rel=1e-4)
    smooth = rows["random-smooth", "epg"]
    assert smooth["low"] <= share <= smooth["high"] and smooth["n"] == 40
    assert rows["uniform", "snr"]["value"] == 0 and abs(rows["random-smooth", "snr"]["value"]) < 1
    for null in ("uniform", "centre"):
        assert rows[null, "token-ratio"]["value"] == pytest.approx(1, rel=1e-4)
    noise = rows["random", "token-ratio"]
    assert noise["low"] <= 1 <= noise["high"]


def test_without_masks_or_words_a_metric_is_skipped_with_its_reason(evaluated: Any) -> None:
    bare = [replace(item, regions=(), phrases=()) for item in data.of(DATA)]
    names = ("epg", "word-epg", "token-ratio", "obj-iou", "amcr", "blank")
    asked, records = evaluated(of_items("bare", bare), methods=("tam",), metrics=names)
    found = one(records)["methods"]["tam"]
    assert found["skipped"]["epg"] == "no mask: no region is marked"
    assert found["skipped"]["word-epg"] == found["skipped"]["obj-iou"] == "no words are marked that name a region"
    assert "'eagle' alone" in found["skipped"]["amcr"]
    assert found["parts"] == {"blank": [0.0]} and "failed" not in found
    (reason,) = [each for each in figures(asked, records)["models"][0]["skipped"] if "epg" in each["metrics"]]
    assert reason["items"] == 2 and len(reason["methods"]) == 4


def test_words_of_another_answer_are_not_taken(evaluated: Any) -> None:
    """The model writes its own answer where the item gives none."""
    (item, _) = data.of(DATA)
    _, records = evaluated(
        of_items("written", [replace(item, answer=None)]), methods=("dex-ar",), metrics=("epg", "word-epg")
    )
    found = one(records)
    assert found["answer"] and "another" not in found
    assert found["methods"]["dex-ar"]["parts"].keys() == {"epg"}
    assert found["methods"]["dex-ar"]["skipped"]["word-epg"].startswith("the answer explained is not")


def test_sampled_answers_are_those_of_the_item_s_seed(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that samples by itself: alike whenever and after whatever an item is made, and where it is shown."""
    config = load("").model.generation_config
    for name, value in {"do_sample": True, "temperature": 20.0, "top_k": 0}.items():
        monkeypatch.setattr(config, name, value, raising=False)
    items = of_items("written", [replace(item, answer=None, phrases=()) for item in data.of(DATA)])
    first, other = (Evaluation(items, "written", ("dex-ar",), ("blank",), seed=seed) for seed in (0, 1))
    records = made(first, first.due(), load)
    assert made(first, reversed([*first.due()]), load) == records != made(other, other.due(), load)
    state = torch.get_rng_state()
    found = shown.shown(first, records, "embedded", load)
    assert torch.equal(torch.get_rng_state(), state)
    answers = {key: record["answer"].strip() for key, record in records.items()}
    assert {f"embedded {case.item}": case.answer for case in found} == answers


def made(asked: Evaluation, due: Iterable[tuple[str, int, str]], load: Any) -> dict[str, Any]:
    measuring = Measuring(load(""), asked.methods, asked.measured, asked.prompt, asked.seed)
    return {key: measuring.record(asked.data[index], lambda: iter(())) for _, index, key in due}


def test_a_broken_item_is_a_row_and_a_failing_method_a_sentence(evaluated: Any, tmp_path: Any) -> None:
    picture(tmp_path / "a.png")
    damaged(tmp_path / "b.png")
    rows = [{"id": name, "image": f"{name}.png", "question": "What?", "boxes": [[1, 1, 5, 5]]} for name in "abc"]
    asked, records = evaluated(
        str(lines(tmp_path / "list.jsonl", *rows)), methods=("dex-ar:layers=[9]", "attention"), metrics=("epg",)
    )
    assert [("error" in record) for record in records.values()] == [False, True, True]
    assert "c.png is missing" in records["embedded c"]["error"]
    found = figures(asked, records)["models"][0]
    assert found["items"] == 3 and len(found["errors"]) == 2
    (failed,) = found["failed"]
    assert failed["methods"] == ["dex-ar:layers=[9]"] and "layer 9 is out of range" in failed["reason"]
    assert {each["method"] for each in found["figures"]} == {"attention", *chance_methods.NAMES}
    assert [each["n"] for each in found["figures"]] == [1] * 4


def test_a_stored_answer_is_explained_by_its_ids(evaluated: Any, load: Any, tmp_path: Any) -> None:
    """EAGLE's objects: one token is the target, and the map beside the object is that of this token."""
    first, ids = stored_list(load(""), tmp_path, target=1)
    asked, records = evaluated(f"eagle:{tmp_path}/list.json,images={tmp_path}", methods=("dex-ar",), metrics=("epg",))
    assert first.metadata["prompt"] == "USER: <image>\nWhat? ASSISTANT:"
    a = first.heatmap(1, resolution="image").astype(float)
    expected = segmentation.energy_inside(a, asked.data[0].masks()[0])
    record = one(records)
    assert record["methods"]["dex-ar"]["parts"]["epg"] == pytest.approx([expected], rel=1e-3)
    assert record["answer"] == first.tokens[1]
    image = load("").model.config.image_token_id
    one_less = [token for index, token in enumerate(ids) if index != ids.index(image)]
    whole = replace(asked.data[0], targets=())
    for wrong, words in (([1, 2], "holds no picture"), (one_less, f"has {len(ids) - 1} tokens, and {len(ids)} others")):
        with pytest.raises(InputError, match=words):
            Asking(load(""), replace(whole, prompt_ids=tuple(wrong)), "")


def test_which_targets_are_explained() -> None:
    item = Item("a", answer_ids=(5, 6, 7), prompt_ids=(1, 2))
    for targets, expected in (
        (((0, 5), (1, 6), (2, 7)), ((1, 2), (5, 6, 7))),
        (((1, 6),), ((1, 2, 5), (6,))),
        (((1, 6), (2, 7)), ((1, 2, 5), (6, 7))),
        (((0, 9),), ((1, 2), (5, 6, 7))),  # an opposite word
        (((0, 5), (2, 7)), ((1, 2), (5, 6, 7))),
        ((), ((1, 2), (5, 6, 7))),
    ):
        assert stored.chosen(replace(item, targets=targets)) == expected


def test_checks_of_sanity(evaluated: Any) -> None:
    names = ("weights-random", "other-picture", "stability")
    _, records = evaluated(DATA, methods=("dex-ar",), metrics=names)
    found = one(records)["methods"]
    weights, other, noise = (found["dex-ar"]["parts"][name][0] for name in names)
    assert abs(weights) < 0.9 and other < 0.99 < 1.0001 > noise > 0.9
    assert found["centre"]["parts"]["weights-random"] == [1] and "blank" in found["uniform"]["skipped"]["stability"]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"methods": ("dexar",)}, "did you mean 'dex-ar'"),
        ({"methods": ("uniform",)}, "is a chance map"),
        ({"methods": ("tam", "tam")}, "named twice"),
        ({"metrics": ("egp",)}, "did you mean 'epg'"),
        ({"metrics": ("epg:fill=blur",)}, "hides nothing"),
        ({"metrics": ("deletion:fill=white",)}, "fill is one of"),
        ({"metrics": ("deletion:steps=3",)}, "NAME:fill=FILL"),
        ({"metrics": ("epg", "epg")}, "named twice"),
        ({"metrics": ()}, "no metric"),
        ({"models": ()}, "no model"),
        ({"n": 0}, "n is a whole number"),
    ],
)
def test_what_is_refused_before_a_model_is_loaded(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Evaluation(data.of(DATA), DATA, **options)


def test_n_items_are_chosen_by_the_seed() -> None:
    chosen = [Evaluation(data.of("shapes:count=9"), "shapes", n=5, seed=seed).chosen for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2] and chosen[0] == sorted(chosen[0]) and len(chosen[0]) == 5
    assert Evaluation(data.of(DATA), "shapes", n=99).chosen == [0, 1]


def test_an_evaluation_may_go_on_elsewhere_but_not_in_another_dtype() -> None:
    placed = (("device", "cpu"), ("dtype", "float32"))
    assert Evaluation(data.of(DATA), DATA, placement=placed).asked()["placement"] == {"dtype": "float32"}


def test_every_metric_says_what_it_is() -> None:
    for name in registry.names():
        metric = registry.of(name)
        assert metric.name == name and metric.about[0].isupper() and not metric.about.endswith(".")
