"""Wrong answers of the embedded model: the smallest removal against a plain loop that writes every answer afresh."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dexar_fast import Explainer, InputError
from dexar_fast.data.shapes import draw_scene
from dexar_fast.methods.eagle.hallucination import Diagnosis, diagnose, minimal_region
from dexar_fast.methods.eagle.hallucination.question import Question
from dexar_fast.methods.eagle.method import Eagle

ABSENT = "Is there a red square?"
WRONG = 132  # a scene of a red cross, a cyan star and a yellow square
PROMPT = "USER: <image>\n{} ASSISTANT:"


@pytest.fixture(scope="module")
def ex() -> Explainer:
    return Explainer.from_pretrained()


def written(ex: Explainer, picture: Image.Image, question: str) -> str:
    """What the model writes about a picture, greedily, by transformers alone."""
    inputs = ex.processor(images=picture, text=PROMPT.format(question), return_tensors="pt")
    ids = ex.model.generate(**inputs, do_sample=False, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
    return ex.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


def shown(found: Diagnosis, count: int) -> Image.Image:
    """The picture with the first regions of the order, put together here."""
    assert found.explanation is not None
    order = found.explanation.diagnostics["eagle"]["order"]
    inside = np.isin(found.explanation.grids[0].labels, order[:count])
    return Image.fromarray(np.asarray(found.before[0]) * inside[..., None].astype(np.uint8))


def check(ex: Explainer, found: Diagnosis, question: str, right: str) -> None:
    """Every number of regions is asked about; the largest with the right answer counts."""
    assert found.explanation is not None
    order = found.explanation.diagnostics["eagle"]["order"]
    answers = {count: written(ex, shown(found, count), question) for count in range(1, len(order))}
    put_right = [count for count, answer in answers.items() if answer.startswith(right)]
    assert found.shown == max(put_right, default=None)
    for count, answer in found.revised.items():
        assert answer.strip() == answers[count]
    labels = found.explanation.grids[0].labels
    if found.shown is None:
        assert found.minimal_region == 1 and found.removed == [] and found.corrected is None
        assert found.after == found.before
    else:
        assert found.removed == order[found.shown :]
        assert found.minimal_region == pytest.approx(np.isin(labels, found.removed).mean())
        assert np.array_equal(np.asarray(found.after[0]), np.asarray(shown(found, found.shown)))
        assert found.corrected is not None and found.corrected.strip() == answers[found.shown]


@pytest.mark.parametrize(("regions", "variant"), [(9, "exact"), (16, "efficient")])
def test_the_smallest_removal(ex: Explainer, regions: int, variant: Any) -> None:
    image = draw_scene(WRONG).image
    found = diagnose(ex, image, ABSENT, "No", Eagle(regions=regions, variant=variant))
    assert found.answer.strip() == written(ex, image, ABSENT) == "Yes, there is a red square."
    assert found.token == 0 and found.question == ABSENT and found.right == "No"
    assert found.explanation is not None and found.explanation.text == found.answer
    check(ex, found, ABSENT, "No")
    assert found.shown is not None and found.minimal_region < 0.5


def test_regions_in_another_order(ex: Explainer) -> None:
    """By the loop that writes every answer afresh; EAGLE's own order gives EAGLE's own region."""
    method = Eagle(regions=9, variant="exact")
    found = diagnose(ex, draw_scene(WRONG).image, ABSENT, "No", method)
    assert found.explanation is not None
    details = found.explanation.diagnostics["eagle"]
    assert minimal_region(ex, found, details["order"], method) == pytest.approx(found.minimal_region)
    labels = found.explanation.grids[0].labels
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(details["order"]).tolist()
        other = replace(found.explanation, diagnostics={"eagle": {**details, "order": order}})
        again = replace(found, explanation=other)
        answers = {count: written(ex, shown(again, count), ABSENT) for count in range(1, len(order))}
        right = max((count for count, answer in answers.items() if answer.startswith("No")), default=None)
        expected = 1.0 if right is None else np.isin(labels, order[right:]).mean()
        assert minimal_region(ex, found, order, method) == pytest.approx(expected)
    with pytest.raises(InputError, match="each of the 9 regions"):
        minimal_region(ex, found, details["order"][1:], method)
    right = diagnose(ex, draw_scene(WRONG).image, ABSENT, "Yes", method)
    assert minimal_region(ex, right, [], method) == 0.0


def test_a_later_token_may_be_the_wrong_one(ex: Explainer) -> None:
    """The colour of the answer, behind four words that are right."""
    image = draw_scene(WRONG).image
    question, right = "What color is the star?", "The star is yellow"
    assert written(ex, image, question).startswith("The star is cyan")
    labels = np.arange(image.width)[None].repeat(image.height, 0) * 6 // image.width
    found = diagnose(ex, image, question, right, Eagle(labels=labels, variant="exact"), max_new_tokens=12)
    assert found.token is not None and found.token >= 3
    check(ex, found, question, right)


def test_an_answer_that_no_removal_gives(ex: Explainer) -> None:
    found = diagnose(ex, draw_scene(WRONG).image, ABSENT, "A", Eagle(regions=4, variant="exact"))
    assert found.shown is None
    check(ex, found, ABSENT, "A")


def test_a_single_region_cannot_be_removed(ex: Explainer) -> None:
    image = draw_scene(WRONG).image
    found = diagnose(ex, image, ABSENT, "No", Eagle(labels=np.zeros((image.height, image.width), np.int32)))
    assert found.explanation is not None
    assert found.shown is None and found.minimal_region == 1 and found.revised == {}


def test_what_the_model_does_not_see_is_not_removed(ex: Explainer) -> None:
    """A processor that crops the middle square: the sides of a wide picture are lost."""
    processor = copy.deepcopy(ex.processor)
    size = {"size": {"shortest_edge": 96}, "crop_size": {"height": 96, "width": 96}, "do_center_crop": True}
    vars(processor.image_processor).update(size)
    wide = Image.new("RGB", (768, 384), "orange")
    wide.paste(draw_scene(WRONG).image, (192, 0))
    labels = np.arange(768)[None].repeat(384, 0) // 96
    found = diagnose(Explainer(ex.model, processor), wide, ABSENT, "No", Eagle(labels=labels, variant="exact"))
    assert found.explanation is not None and found.shown is not None
    assert found.explanation.diagnostics["eagle"]["unseen_regions"] == [0, 1, 6, 7]
    assert found.minimal_region == pytest.approx(len(found.removed) / 8)
    expected = np.asarray(wide) * ~np.isin(labels, found.removed)[..., None]
    assert np.array_equal(np.asarray(found.after[0]), expected)


def test_an_answer_that_is_right(ex: Explainer) -> None:
    image = draw_scene(WRONG).image
    for right in ("Yes", "Yes, there is a red square.", "Yes, there is a red square. It is small."):
        found = diagnose(ex, image, ABSENT, right)
        assert found.explanation is None and found.token is None and found.shown is None
        assert found.minimal_region == 0 and found.before == found.after == [image]
        assert found.corrected == found.answer == " Yes, there is a red square."


def test_a_model_that_says_nothing_has_not_agreed(ex: Explainer) -> None:
    image = draw_scene(WRONG).image
    asked = Question(ex, [image], ABSENT, "No", None)
    before = ex.model.generation_config.eos_token_id
    ex.model.generation_config.eos_token_id = int(asked.answer[0])
    try:
        silent = asked.answered([image])
    finally:
        ex.model.generation_config.eos_token_id = before
    assert silent.tolist() == [] and not asked.is_right(silent)
    assert asked.is_right(torch.cat([asked.right, asked.answer])) and not asked.is_right(asked.answer)


def test_only_eagle_hides_regions(ex: Explainer) -> None:
    with pytest.raises(InputError, match="the method must be an Eagle"):
        diagnose(ex, draw_scene(WRONG).image, ABSENT, "No", "eagle")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "right", "message"),
    [
        ([{"role": "user", "content": ABSENT}], "No", "the question must be a text, not a list"),
        (ABSENT, "", "the answer is empty"),
        (ABSENT, 3, "the right answer must be a text, not a int"),
        (ABSENT, None, "the right answer must be a text, not a NoneType"),
        ("", "No", "empty"),
    ],
)
def test_what_means_nothing_is_refused(ex: Explainer, question: Any, right: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        diagnose(ex, draw_scene(WRONG).image, question, right)
