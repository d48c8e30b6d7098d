"""A prompt that goes on behind an answer, over a pool: only what is new runs, in every family, images included."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import zoo
from alike import assert_same
from zoo_dialogues import counted, with_images, with_words

from dexar_fast import Explainer, Explanation
from dexar_fast.generation.runner import Runner
from dexar_fast.kvcache import growing, reuse
from dexar_fast.kvcache.naming import Pictures, position_keys
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.kvcache.reuse import takes_images_behind
from dexar_fast.prompt import request

PREFIX_LM = ("paligemma", "paligemma2")
FAMILIES = sorted(zoo.FAMILIES.keys() - {*PREFIX_LM})
TARGETS = torch.tensor([20, 31, 44])
SIX = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}


@cache
def built(family: str) -> tuple[Any, zoo.Inputs, torch.Tensor]:
    """A model, its inputs, and its answer to them."""
    model, inputs = zoo.build(family, torch.float32)
    inputs.pop("labels", None)
    return model, inputs, Explainer(model).explain_inputs(inputs, **SIX).token_ids


def explained(
    model: Any, pool: KVPool, inputs: zoo.Inputs, targets: torch.Tensor | None = None, earlier: Pictures | None = None
) -> Explanation:
    asked = replace(request.given(inputs, None, targets), earlier=earlier)
    return Runner(Explainer(model, pool=pool), asked, {} if targets is not None else SIX, pool).explain()


def layer(model: Any) -> Any:
    return model.get_decoder().layers[0]


@pytest.mark.parametrize("targets", [None, TARGETS], ids=["generated", "given"])
@pytest.mark.parametrize("images", [False, True], ids=["words", "images"])
@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_is_new_runs(family: str, images: bool, targets: torch.Tensor | None) -> None:
    model, inputs, answer = built(family)
    second = with_images(inputs, answer, inputs) if images else with_words(inputs, answer)
    expected = Explainer(model).explain_inputs(second, target_ids=targets, **({} if targets is not None else SIX))
    pool = KVPool(512, 4)
    explained(model, pool, inputs)
    with counted(layer(model)) as positions:
        found = explained(model, pool, second, targets, Pictures.of(model.config, inputs, None))
    assert_same(found, expected)
    known = inputs["input_ids"].shape[1] + len(answer) - 1 if not images or takes_images_behind(model) else 0
    answered = 2 * len(expected) - 1 if targets is None else len(expected)  # written, then explained
    assert sum(positions) <= second["input_ids"].shape[1] - known + answered
    assert pool.books.stats()["held"] == 0
    pool.books.audit()


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3", "idefics3"])
def test_the_tower_sees_later_images_alone(family: str) -> None:
    model, inputs, answer = built(family)
    second = with_images(inputs, answer, inputs)
    pool, seen = KVPool(512, 4), []
    explained(model, pool, inputs, TARGETS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pictures, "without", recording(Pictures.without, seen))
        explained(model, pool, second, TARGETS, Pictures.of(model.config, inputs, None))
    if takes_images_behind(model):
        (passed,) = seen
        assert passed["pixel_values"].shape == inputs["pixel_values"].shape
        assert torch.equal(passed["pixel_values"], 0.7 * inputs["pixel_values"] + 0.1)


def recording(function: Any, seen: list[Any]) -> Any:
    def wrapped(*arguments: Any) -> Any:
        seen.append(function(*arguments))
        return seen[-1]

    return wrapped


def test_an_older_transformers_runs_the_whole_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "RIGHT_BEHIND", (99, 0))
    model, inputs, answer = built("gemma3")
    second, pool = with_images(inputs, answer, inputs), KVPool(512, 4)
    expected = Explainer(model).explain_inputs(second, target_ids=TARGETS)
    explained(model, pool, inputs)
    with counted(layer(model)) as positions:
        assert_same(explained(model, pool, second, TARGETS, Pictures.of(model.config, inputs, None)), expected)
    assert positions[0] == second["input_ids"].shape[1]


def test_beams_run_images_together() -> None:
    model, inputs, answer = built("llava")
    second, pool = with_images(inputs, answer, inputs), KVPool(1024, 4)
    explained(model, pool, inputs)
    asked = replace(request.given(second, None), earlier=Pictures.of(model.config, inputs, None))
    found = Runner(Explainer(model, pool=pool), asked, SIX | {"num_beams": 2}, pool).explain()
    assert_same(found, Explainer(model).explain_inputs(second, **SIX, num_beams=2))


@pytest.mark.parametrize("family", FAMILIES)
def test_images_that_were_there_before_keep_their_names(family: str) -> None:
    model, inputs, answer = built(family)
    second = with_images(inputs, answer, inputs)
    earlier = Pictures.of(model.config, inputs, None)
    assert earlier is not None and earlier.begin(second) and earlier.begin(inputs)
    length = inputs["input_ids"].shape[1]
    keys = position_keys(model.config, second, earlier)
    assert keys[:length].tolist() == position_keys(model.config, inputs).tolist()
    alone = position_keys(model.config, second)
    assert keys[length:].tolist() == alone[length:].tolist()
    again = Pictures.of(model.config, second, earlier)
    assert again is not None and again.begin(second) and not again.begin(inputs)


def test_other_images_or_other_inputs_carry_no_names() -> None:
    model, inputs, answer = built("qwen2_5_vl")
    second, earlier = with_images(inputs, answer, inputs), Pictures.of(model.config, inputs, None)
    assert earlier is not None
    nudged = second | {"pixel_values": second["pixel_values"] + 1e-3}
    regridded = second | {"image_grid_thw": second["image_grid_thw"][:, [0, 2, 1]]}
    for other in (nudged, regridded, second | {"beside": torch.ones(1)}, {**second, "pixel_values": torch.ones(4)}):
        assert not earlier.begin(other)
        assert position_keys(model.config, other, earlier).tolist() == position_keys(model.config, other).tolist()


def spread(inputs: zoo.Inputs) -> zoo.Inputs:
    return inputs | {"position_ids": 2 * torch.arange(inputs["input_ids"].shape[1])[None]}


def without_types(inputs: zoo.Inputs) -> zoo.Inputs:
    return inputs | {"token_type_ids": torch.zeros_like(inputs["token_type_ids"])}


@pytest.mark.parametrize(("family", "told"), [("llava", spread), ("gemma3", spread), ("gemma3", without_types)])
def test_what_is_told_of_positions_is_in_their_names(family: str, told: Any) -> None:
    model, inputs, _ = built(family)
    other, pool = told(inputs), KVPool(512, 4)
    expected = Explainer(model).explain_inputs(other, target_ids=TARGETS)
    explained(model, pool, inputs, TARGETS)
    for _ in range(2):  # the second finds the first
        assert_same(explained(model, pool, other, TARGETS), expected)
    assert_same(explained(model, pool, inputs, TARGETS), Explainer(model).explain_inputs(inputs, target_ids=TARGETS))


def test_types_that_are_not_told_name_other_images() -> None:
    model, inputs, _ = built("qwen2_vl")
    untold = {name: x for name, x in inputs.items() if name != "mm_token_type_ids"}
    visual = (inputs["input_ids"][0] == model.config.image_token_id).numpy()
    told, other = (position_keys(model.config, each) for each in (inputs, untold))
    assert not (told == other)[visual].any() and (told == other)[~visual].all()


def test_usual_types_leave_the_names_of_text_alone() -> None:
    """As the answers behind a prompt are named."""
    model, inputs, _ = built("gemma3")
    ids = inputs["input_ids"][0]
    text = ids != model.config.image_token_id
    assert (position_keys(model.config, inputs)[text] == ids[text].numpy()).all()
    other = inputs["token_type_ids"].clone()
    other[0, 0] = 1
    keys = position_keys(model.config, inputs | {"token_type_ids": other})
    assert keys[0] != ids[0] and (keys[1:] == position_keys(model.config, inputs)[1:]).all()


@pytest.mark.parametrize("family", PREFIX_LM)
def test_a_prefix_lm_has_no_earlier_images(family: str) -> None:
    model, inputs, _ = built(family)
    assert Pictures.of(model.config, inputs, None) is None


def test_a_model_that_was_changed_while_it_answered_leaves_no_answer_behind() -> None:
    model, inputs, answer = built("llava")
    pool = KVPool(512, 4)
    attention, scale = layer(model).self_attn, layer(model).self_attn.scaling
    with Explainer(model, pool=pool).stream_inputs(inputs, chunk_size=2, **SIX) as stream:
        next(stream)
        attention.scaling = 2 * scale
        rest = list(stream)
    attention.scaling = scale
    assert rest
    with counted(layer(model)) as positions:
        explained(model, pool, with_words(inputs, answer), TARGETS)
    assert positions[0] >= len(answer) + 5  # those of the question, too


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_a_pool_that_grows_knows_what_it_knew(family: str) -> None:
    model, inputs, answer = built(family)
    second = with_words(inputs, answer)
    small = KVPool(2 * inputs["input_ids"].shape[1], 4)
    explained(model, small, inputs)
    large = growing.grown(small, 512, model, position_keys(model.config, second))
    assert large.slots == 512 and large.books.stats()["held"] == 0
    with counted(layer(model)) as positions:
        found = explained(model, large, second, TARGETS)
    assert_same(found, Explainer(model).explain_inputs(second, target_ids=TARGETS))
    assert sum(positions) <= 1 + 5 + len(TARGETS)


def test_a_pool_that_grows_from_nothing_is_empty() -> None:
    model, inputs, _ = built("llava")
    large = growing.grown(KVPool(64, 4), 256, model, position_keys(model.config, inputs))
    assert large.slots == 256 and large.books.stats()["cached"] == 0
