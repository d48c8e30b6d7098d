"""Harder Shapes: occluded objects, crowds, counts, relations, what is absent; the old scenes stay as they were."""

import hashlib
from itertools import combinations

import numpy as np
import pytest

from dexar_fast.data import shapes
from dexar_fast.data.shapes.harder import OPPOSITES, placed
from dexar_fast.errors import InputError

OVERLAPPING = [shapes.overlapping(seed) for seed in range(200)]
DIGEST = "de01b2fb6e87d1789fb3dc63541722ce219373c46cf6a9148fac8561f3e242ff"
CROWDS = [shapes.crowd(seed) for seed in range(200)]


def at(x: float, y: float, shape: str = "star", color: str = "red", layer: int = 0) -> shapes.Placed:
    return shapes.Placed(color, shape, x, y, 0.1, 0, layer)


def test_the_layouts_that_the_embedded_model_was_trained_on_have_not_moved():
    rows = [
        (item.color, item.shape, *(round(value, 6) for value in (item.x, item.y, item.radius, item.tilt)))
        for seed in range(50)
        for item in shapes.layout(seed)
    ]
    assert hashlib.sha256(repr(rows).encode()).hexdigest() == DIGEST


@pytest.mark.parametrize("make", [shapes.layout, shapes.overlapping, shapes.crowd])
def test_objects_run_left_to_right_inside_the_picture(make):
    for objects in (make(seed) for seed in range(100)):
        assert list(objects) == sorted(objects, key=lambda item: item.x)
        for item in objects:
            assert all(1.1 * item.radius <= value <= 1 - 1.1 * item.radius + 1e-9 for value in (item.x, item.y))


def test_overlapping_scenes_hold_one_object_in_front_and_no_twins():
    assert {len(objects) for objects in OVERLAPPING} == {2, 3}
    for objects in OVERLAPPING:
        assert sorted(item.layer for item in objects) == [0] * (len(objects) - 1) + [1]
        assert len({(item.color, item.shape) for item in objects}) == len(objects)


@pytest.mark.parametrize("seed", range(6))
def test_a_hidden_part_is_no_part_of_the_mask(seed):
    objects = shapes.overlapping(seed)
    scene = shapes.paint(objects, seed, 192)
    alone = [shapes.paint((item,), seed, 192).masks[0] for item in objects]
    (front,) = [index for index, item in enumerate(objects) if item.layer]
    assert scene.masks.sum(axis=0).max() == 1
    for index, (mask, whole) in enumerate(zip(scene.masks, alone, strict=True)):
        expected = whole if index == front else whole & ~alone[front]
        assert np.array_equal(mask, expected)
        assert scene.hidden[index] == pytest.approx(1 - expected.sum() / whole.sum())
    assert 0 < max(scene.hidden) < 0.8 and scene.hidden[front] == 0


def test_the_front_object_shows_its_own_colour_where_both_lie():
    objects = (at(0.45, 0.5, "square", "red"), at(0.55, 0.5, "square", "blue", layer=1))
    scene = shapes.paint(objects, 0, 192)
    assert np.asarray(scene.image, dtype=float)[96, 96].argmax() == 2
    assert scene.masks[:, 96, 96].tolist() == [False, True]


def test_crowds_hold_three_to_six_apart_of_two_colours_and_two_shapes():
    assert {len(objects) for objects in CROWDS} == {3, 4, 5, 6}
    for objects in CROWDS:
        assert len({item.color for item in objects}) <= 2 and len({item.shape for item in objects}) <= 2
        for a, b in combinations(objects, 2):
            assert np.hypot(a.x - b.x, a.y - b.y) >= 1.15 * (a.radius + b.radius)


def test_counts_speak_of_every_object_of_the_shape():
    objects = (at(0.1, 0.5, "cross"), at(0.5, 0.5, "star"), at(0.9, 0.5, "cross", "blue"))
    assert shapes.how_many(objects, "cross").text == "How many crosses are there?"
    assert shapes.how_many(objects, "cross").answer == "There are two crosses."
    assert shapes.how_many(objects, "star").answer == "There is one star."
    assert shapes.how_many(objects, "heart").answer == "There are no hearts."
    words = shapes.how_many(objects, "cross").words
    assert [(word.text, word.group) for word in words if word.kind != "filler"] == [
        (" two", (0, 2)),
        (" crosses", (0, 2)),
    ]


@pytest.mark.parametrize(
    ("a", "b", "relation"),
    [
        (at(0.2, 0.5), at(0.7, 0.6), "left of"),
        (at(0.7, 0.5), at(0.2, 0.6), "right of"),
        (at(0.5, 0.2), at(0.6, 0.8), "above"),
        (at(0.5, 0.8), at(0.6, 0.2), "below"),
        (at(0.5, 0.5), at(0.6, 0.6), None),
        (at(0.5, 0.5, layer=1), at(0.55, 0.5), "in front of"),
        (at(0.5, 0.5), at(0.55, 0.5, layer=1), "behind"),
        (at(0.2, 0.5, layer=1), at(0.7, 0.5), "left of"),
    ],
)
def test_relations(a, b, relation):
    assert placed(a, b) == relation
    assert placed(b, a) == (None if relation is None else OPPOSITES[relation])


def test_a_relation_is_affirmed_or_put_right():
    objects = (at(0.2, 0.5), at(0.7, 0.5, "cross", "blue"))
    right, wrong = (shapes.is_placed(objects, 0, 1, claim) for claim in ("left of", "right of"))
    assert right.text == "Is the red star left of the blue cross?"
    assert right.answer == "Yes, the red star is left of the blue cross."
    assert wrong.text == "Is the red star right of the blue cross?"
    assert wrong.answer == "No, the red star is left of the blue cross."
    assert [word.text for word in right.words if word.kind == "relation"] == [" left", " of"]
    assert {word.group for word in right.words if word.kind == "relation"} == {(0, 1)}


def test_a_question_may_presuppose_what_is_absent():
    question = shapes.color_of_absent((at(0.2, 0.5),), "heart")
    assert (question.text, question.answer) == ("What color is the heart?", "There is no heart.")
    assert question.words[question.asked[0]].text == " no"


def test_harder_questions_ask_only_what_the_scene_answers():
    for objects in (*OVERLAPPING[:40], *CROWDS[:40]):
        questions = shapes.harder_questions(objects)
        assert len({question.text for question in questions}) == len(questions)
        assert {question.kind for question in questions} <= {"how_many", "relation", "premise"}
        for question in questions:
            for word in question.words:
                if word.index is not None:
                    assert word.text.strip() == getattr(objects[word.index], word.kind)
    relations = [q for objects in OVERLAPPING for q in shapes.harder_questions(objects) if "in front of" in q.text]
    answers = [question.words[0].text for question in relations]
    assert answers.count("Yes") == answers.count("No") == len(OVERLAPPING)


def test_what_a_scene_does_not_answer_is_refused():
    objects = (at(0.5, 0.5), at(0.6, 0.6, "cross"))
    with pytest.raises(InputError, match=r"neither what placed\(\) says of the two, None"):
        shapes.is_placed(objects, 0, 1, "left of")
    with pytest.raises(InputError, match="there is a star"):
        shapes.color_of_absent(objects, "star")
