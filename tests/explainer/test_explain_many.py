"""What questions about one image share is run once, and explanations do not depend on it."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import small_llava
import torch
import zoo
from alike import PROMPTS, another_question, assert_same
from PIL import Image
from zoo_dialogues import counted

from dexar_fast import Explainer, InputError, NumericalError
from dexar_fast._C import BudgetExhausted
from dexar_fast.kvcache.pool import KVPool

FAMILIES = sorted(zoo.FAMILIES | zoo.VARIANTS)
PREFIX_LM = ("paligemma", "paligemma2")
TARGETS = torch.tensor([20, 31, 44, 17, 25, 60])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reused_prefix_gives_the_explanation_from_scratch(family: str) -> None:
    model, inputs = zoo.build(family, torch.float32)
    pool = KVPool(512, 4)
    pooled, alone = Explainer(model, pool=pool, chunk_size=4), Explainer(model, chunk_size=4)
    other = another_question(inputs)
    for asked in (inputs, other, inputs):
        assert_same(pooled.explain_inputs(asked, target_ids=TARGETS), alone.explain_inputs(asked, target_ids=TARGETS))
    generated = pooled.explain_inputs(other, max_new_tokens=6, do_sample=False)
    assert_same(generated, alone.explain_inputs(other, max_new_tokens=6, do_sample=False))
    stats = pool.books.stats()
    assert stats["held"] == stats["sequences"] == 0
    assert (stats["reused_slots"] > 0) == (family != "paligemma2")  # whose window is shorter than its prompt here


@pytest.mark.parametrize("family", PREFIX_LM)
@pytest.mark.parametrize(
    "options", [{"target_ids": TARGETS}, {"max_new_tokens": 6}, {"max_new_tokens": 6, "num_beams": 3}]
)
def test_an_identical_prompt_of_a_prefix_lm_is_not_run_again(family: str, options: dict[str, Any]) -> None:
    model, inputs = zoo.build(family, torch.float64)
    if family == "paligemma2":
        model.config.text_config.sliding_window = 27
    pooled = Explainer(model, pool=KVPool(512, 4))
    expected = Explainer(model).explain_inputs(inputs, **options)
    assert_same(pooled.explain_inputs(inputs, **options), expected, 1e-9)
    with counted(model.model.vision_tower) as looks:
        assert_same(pooled.explain_inputs(inputs, **options), expected, 1e-9)
    assert not looks


@pytest.mark.parametrize("options", [{"target_ids": TARGETS}, {"max_new_tokens": 3, "do_sample": False}])
@pytest.mark.parametrize("family", sorted(zoo.FAMILIES))
def test_prompts_that_part_before_their_image_share_the_look_at_it(family: str, options: dict[str, Any]) -> None:
    model, inputs = zoo.build(family, torch.float32)
    ids = inputs["input_ids"].clone()
    ids[0, 1] = 33
    other_image = inputs | {"pixel_values": inputs["pixel_values"] + 1}
    pooled, alone = Explainer(model, pool=KVPool(512, 4)), Explainer(model)
    for asked, looks in [(inputs, 1), (inputs | {"input_ids": ids}, 0), (other_image, 1)]:
        expected = alone.explain_inputs(asked, **options)
        with counted(next(model.model.children())) as seen:
            assert_same(pooled.explain_inputs(asked, **options), expected)
        assert len(seen) == looks
        assert "get_image_features" not in vars(model.model)


def test_what_beams_looked_at_is_not_taken_for_one_look() -> None:
    """transformers 5.17 has the vision tower look once for every beam."""
    model, inputs = zoo.build("paligemma", torch.float32)
    ids = inputs["input_ids"].clone()
    ids[0, -2] = 33
    pooled, alone = Explainer(model, pool=KVPool(512, 4)), Explainer(model)
    for asked, beams in [(inputs, 3), (inputs | {"input_ids": ids}, 1)]:
        options = {"max_new_tokens": 3, "num_beams": beams, "do_sample": False}
        assert_same(pooled.explain_inputs(asked, **options), alone.explain_inputs(asked, **options))


@pytest.mark.parametrize("tail", [1, 2, 3, 4, 5])
def test_the_prompt_may_end_anywhere_in_a_block(tail: int) -> None:
    model, inputs = zoo.build("qwen2_5_vl", torch.float32)
    inputs = {k: v[..., : v.shape[-1] - tail] if v.shape == inputs["input_ids"].shape else v for k, v in inputs.items()}
    pooled, alone = Explainer(model, pool=KVPool(256, 4)), Explainer(model)
    for _ in range(2):
        found = pooled.explain_inputs(inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert_same(found, alone.explain_inputs(inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False))


@pytest.fixture
def llava() -> Explainer:
    processor = small_llava.processor()
    return Explainer(small_llava.model(processor.tokenizer), processor)


@pytest.fixture
def image() -> Image.Image:
    return small_llava.noise()


def test_many_questions_run_the_vision_tower_once(llava: Explainer, image: Image.Image) -> None:
    expected = [llava.explain(image, prompt, "a red circle") for prompt in PROMPTS]
    model = llava.model.model
    with counted(model.vision_tower) as looks, counted(model.language_model.layers[0]) as positions:
        found = llava.explain_many(image, PROMPTS, ["a red circle"] * 3)
    assert len(looks) == 1
    alone = sum(explanation.metadata["prompt_tokens"] + len(explanation) for explanation in expected)
    assert sum(positions) < alone - 2 * len(expected[0].visual_positions)
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


def test_answers_of_one_question_run_the_prompt_once(llava: Explainer, image: Image.Image) -> None:
    answers = ["a red circle", "two blue squares", "a"]
    llava.explain(image, PROMPTS[0], "a")  # the first prompt of a model is run under its own attention, too
    with counted(llava.model.model.vision_tower) as looks:
        found = llava.explain_many(image, PROMPTS[0], answers)
    assert len(looks) == 1
    for explanation, answer in zip(found, answers, strict=True):
        assert_same(explanation, llava.explain(image, PROMPTS[0], answer))


def test_each_question_may_have_several_answers(llava: Explainer, image: Image.Image) -> None:
    found = llava.explain_many(image, PROMPTS[:2], [["a red circle", "two"], "blue"])
    asked = [(PROMPTS[0], "a red circle"), (PROMPTS[0], "two"), (PROMPTS[1], "blue")]
    for explanation, (prompt, answer) in zip(found, asked, strict=True):
        assert_same(explanation, llava.explain(image, prompt, answer))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_generated_answers_are_those_of_separate_calls(
    llava: Explainer, image: Image.Image, options: dict[str, Any]
) -> None:
    found = llava.explain_many(image, PROMPTS, max_new_tokens=5, do_sample=False, **options)
    for explanation, prompt in zip(found, PROMPTS, strict=True):
        assert_same(explanation, llava.explain(image, prompt, max_new_tokens=5, do_sample=False, **options))


def test_a_pool_of_the_explainer_remembers_between_calls(image: Image.Image) -> None:
    processor, pool = small_llava.processor(), KVPool(512)
    explainer = Explainer(small_llava.model(processor.tokenizer), processor, pool=pool)
    explainer.explain(image, PROMPTS[0], "a red circle")
    with counted(explainer.model.model.vision_tower) as looks:
        explainer.explain(image, PROMPTS[1], "a red circle")
        assert not looks
        explainer.explain(image.transpose(Image.Transpose.ROTATE_90), PROMPTS[1], "a red circle")
    assert len(looks) == 1
    assert pool.books.stats()["held"] == 0


@pytest.mark.parametrize("fault", ["budget", "streamer", "weights"])
def test_after_a_fault_the_pool_is_empty_and_the_next_call_right(image: Image.Image, fault: str) -> None:
    processor = small_llava.processor()
    model = small_llava.model(processor.tokenizer)
    expected = Explainer(model, processor).explain(image, PROMPTS[0], "a red circle")
    pool = KVPool(expected.metadata["prompt_tokens"] + 8, 4)
    explainer = Explainer(model, processor, pool=pool)

    class Interrupted:
        def put(self, _: torch.Tensor) -> None:
            raise KeyboardInterrupt

    head = model.lm_head.weight
    if fault == "budget":
        with pytest.raises(BudgetExhausted):
            explainer.explain(image, PROMPTS[0], max_new_tokens=40)
    elif fault == "streamer":
        with pytest.raises(KeyboardInterrupt):
            explainer.explain(image, PROMPTS[0], max_new_tokens=4, streamer=Interrupted())
    else:
        right = head.data.clone()
        head.data.fill_(torch.nan)
        with pytest.raises(NumericalError):
            explainer.explain(image, PROMPTS[0], "a red circle")
        head.data.copy_(right)
    assert pool.books.stats()["held"] == 0
    pool.books.audit()
    assert_same(explainer.explain(image, PROMPTS[0], "a red circle"), expected)


def test_no_questions_have_no_explanations(llava: Explainer, image: Image.Image) -> None:
    assert llava.explain_many(image, []) == []


@pytest.mark.parametrize("extension", ["without_extension", "broken_extension"])
def test_without_the_extension_questions_are_explained_one_by_one(
    llava: Explainer,
    image: Image.Image,
    extension: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("dexar_fast.kvcache.pool", "dexar_fast.kvcache.cache", "dexar_fast.kvcache.reuse"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    request.getfixturevalue(extension)
    (found,) = llava.explain_many(image, PROMPTS[0], ["a red circle"])
    assert_same(found, llava.explain(image, PROMPTS[0], "a red circle"))


@pytest.mark.parametrize("responses", [["a"], "a b c", ["a"] * 4])
def test_responses_that_do_not_match_the_prompts_are_refused(
    llava: Explainer, image: Image.Image, responses: Any
) -> None:
    with pytest.raises(InputError, match="an answer, or a list of them, to each of the 3 prompts"):
        llava.explain_many(image, PROMPTS, responses)


def test_questions_and_answers_may_come_one_by_one(llava: Explainer, image: Image.Image) -> None:
    (found,) = llava.explain_many(image, iter([PROMPTS[0]]), (answer for answer in ["a red circle"]))
    assert_same(found, llava.explain(image, PROMPTS[0], "a red circle"))


@pytest.mark.parametrize(
    ("prompts", "responses", "message"),
    [
        (None, None, "prompts must be a list, not a NoneType"),
        (7, None, "prompts must be a list, not a int"),
        (b"What?", None, "prompts must be a list, not a bytes"),
        (PROMPTS[:1], 7, "responses must be a list, not a int"),
        (PROMPTS[:1], [7], "answers must be a list, not a int"),
        (PROMPTS[:1], [[7]], "the answer must be a text, not a int"),
    ],
)
def test_what_is_no_list_is_refused(
    llava: Explainer, image: Image.Image, prompts: Any, responses: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        llava.explain_many(image, prompts, responses)
