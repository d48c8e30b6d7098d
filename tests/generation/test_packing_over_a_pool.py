"""Given answers about one picture in one row, over rows of a pool that are not equally long."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest
import torch
import zoo
from batches import ALL, alone, assert_equal, batched, said
from engine_cases import long_prompt

from dexar_fast import Explainer, InputError
from dexar_fast.attribution.tails import trust, values
from dexar_fast.generation.batch.sharing import Sharing
from dexar_fast.kvcache import naming
from dexar_fast.kvcache.pool import KVPool

APART = ("qwen3_vl_moe", "paligemma", "paligemma2", "gemma3")  # as in test_packing.py
ANSWERS = [[30, 41, 52], [33, 20], [28, 60, 35, 44, 51], [47]]


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms that sum in float32 in a float64 model keep no tail from agreeing. Slots hold NaN until written."""
    monkeypatch.setitem(trust.TOLERANCE, torch.float64, 1e-5)
    monkeypatch.setitem(values.EPS, torch.float64, torch.finfo(torch.float32).eps)
    allocate = KVPool._allocate
    monkeypatch.setattr(KVPool, "_allocate", lambda pool, states: allocate(pool, states).fill_(torch.nan))


def questions(inputs: zoo.Inputs) -> list[zoo.Inputs]:
    """Four of different lengths about one picture."""
    found = []
    for n, words in enumerate((0, 5, 2, 3)):
        longer = long_prompt(inputs, words)
        ids = longer["input_ids"].clone()
        ids[0, -1 - words :] += n
        found.append(longer | {"input_ids": ids})
    return found


def learnt(explainer: Explainer, pool: KVPool) -> Explainer:
    """One for the same model over a pool, which knows what the other has found out."""
    other = Explainer(explainer.model, pool=pool)
    other.decoder = explainer.decoder
    return other


def is_free(pool: KVPool) -> bool:
    books = pool.books.stats()
    return books["held"] == books["sequences"] == 0


@pytest.mark.parametrize("family", ALL)
def test_every_family(family: str) -> None:
    """The longest runs by itself, the others behind its picture; once more when the pool knows the questions, too."""
    model, inputs = zoo.build(family)
    explainer, several = Explainer(model), questions(inputs)
    expected = [alone(explainer, several, ANSWERS) for _ in range(2)][1]
    pool = KVPool(2048)
    over_pool = learnt(explainer, pool)
    for _ in range(2):
        found = batched(over_pool, several, ANSWERS)
        assert_equal(found, expected, 1e-9)
        assert said(found, "batch") == ([4] * 4 if family in APART else [3, None, 3, 3])
        assert said(found, "packed") == ([False] * 4 if family in APART else [True, None, True, True])
        assert is_free(pool)


def test_the_picture_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row begins with its slots; only what stands behind it is new."""
    model, inputs = zoo.build("llava", torch.float32)
    explainer, several = Explainer(model), questions(inputs)
    expected = alone(explainer, several, ANSWERS)
    looked: list[Any] = []
    look = type(model.model).get_image_features
    counted = wraps(look)(lambda *args, **kwargs: [looked.append(args), look(*args, **kwargs)][1])
    monkeypatch.setattr(type(model.model), "get_image_features", counted)
    pool = KVPool(2048)
    assert_equal(batched(learnt(explainer, pool), several, ANSWERS), expected, 1e-5)
    looked.clear()  # beside the first question's, those of comparisons
    reused = pool.books.stats()["reused_slots"]
    assert_equal(batched(learnt(explainer, pool), several, ANSWERS), expected, 1e-5)
    assert not looked
    assert pool.books.stats()["reused_slots"] - reused == sum(each["input_ids"].shape[1] - 1 for each in several)
    behind = int((inputs["input_ids"][0] == zoo.IMAGE).nonzero()[-1]) + 1
    assert pool.books.stats()["reused_slots"] >= 3 * behind


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_pool_without_room_for_all(rows: int) -> None:
    """Fewer run at once, at last one by one; none is lost."""
    model, inputs = zoo.build("qwen2_5_vl")
    explainer, several = Explainer(model), questions(inputs)
    expected = [alone(explainer, several, ANSWERS) for _ in range(2)][1]
    longest = max(each["input_ids"].shape[1] + len(a) for each, a in zip(several, ANSWERS, strict=True))
    pool = KVPool(rows * (-(-longest // 16) * 16), wait=0)
    found = batched(learnt(explainer, pool), several, ANSWERS)
    assert_equal(found, expected, 1e-9)
    assert is_free(pool)


def test_other_pictures_and_other_beginnings_are_not_shared() -> None:
    """They run in rows without the pool."""
    model, inputs = zoo.build("llava")
    explainer, several = Explainer(model), questions(inputs)[:3]
    several[1] = several[1] | {"pixel_values": several[1]["pixel_values"] + 0.1}
    ids = several[2]["input_ids"].clone()
    ids[0, 1] = 77
    several[2] = several[2] | {"input_ids": ids}
    expected = [alone(explainer, several, ANSWERS[:3]) for _ in range(2)][1]
    pool = KVPool(2048)
    found = batched(learnt(explainer, pool), several, ANSWERS[:3])
    assert_equal(found, expected, 1e-9)
    assert said(found, "packed") == [True, True, True]
    assert pool.books.stats()["reused_slots"] == 0


def test_two_pictures_with_two_questions_each() -> None:
    model, inputs = zoo.build("qwen2_5_vl")
    other = inputs | {"pixel_values": inputs["pixel_values"].flip(0)}
    several = [*questions(inputs)[:2], *questions(other)[:2]]
    explainer = Explainer(model)
    expected = [alone(explainer, several, ANSWERS) for _ in range(2)][1]
    pool = KVPool(2048)
    found = batched(learnt(explainer, pool), several, ANSWERS)
    assert_equal(found, expected, 1e-9)
    assert is_free(pool)


def test_a_bad_item_costs_itself() -> None:
    model, inputs = zoo.build("llava")
    explainer, several = Explainer(model), questions(inputs)
    expected = [alone(explainer, several, ANSWERS) for _ in range(2)][1]
    pool = KVPool(2048)
    found = batched(learnt(explainer, pool), several, [*ANSWERS[:2], [10_000], ANSWERS[3]])
    assert isinstance(found.pop(2), InputError)
    del expected[2]
    assert_equal(found, expected, 1e-9)
    assert said(found, "batch") == [2, None, 2]
    assert is_free(pool)


def test_a_picture_that_the_pool_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first question failed, say: fewer run at once, until one has left it there."""
    monkeypatch.setattr(Sharing, "is_first", lambda *_: False)
    model, inputs = zoo.build("llava")
    explainer, several = Explainer(model), questions(inputs)
    expected = [alone(explainer, several, ANSWERS) for _ in range(2)][1]
    pool = KVPool(2048)
    found = batched(learnt(explainer, pool), several, ANSWERS)
    assert_equal(found, expected, 1e-9)
    assert sorted(map(str, said(found, "batch"))) == ["2", "2", "None", "None"]
    assert is_free(pool)


def test_inputs_that_have_no_name_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """They run in rows without the pool."""

    def fail(*_: Any) -> Any:
        raise TypeError("what is this?")

    model, inputs = zoo.build("llava")
    explainer, several = Explainer(model), questions(inputs)
    expected = [alone(explainer, several, ANSWERS) for _ in range(2)][1]
    monkeypatch.setattr(naming, "position_keys", fail)
    pool = KVPool(2048)
    found = batched(learnt(explainer, pool), several, ANSWERS)
    assert_equal(found, expected, 1e-9)
    assert said(found, "packed") == [True] * 4
    assert pool.books.stats()["reused_slots"] == 0
