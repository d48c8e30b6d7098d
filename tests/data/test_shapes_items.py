"""Shapes as a data set: pictures, masks and phrases of seeded scenes."""

import pickle

import numpy as np
import pytest

from dexar_fast.data import read, shapes
from dexar_fast.errors import InputError

LAYOUTS = {"plain": shapes.layout, "overlapping": shapes.overlapping, "crowd": shapes.crowd}


def test_trained_questions_of_plain_scenes_are_those_of_the_scene():
    data = read("shapes", count=3, first_seed=5)
    assert {name.rsplit("-", 1)[0] for name in data.ids} == {"plain-5", "plain-6", "plain-7"}
    for item in (item.checked() for item in data):
        seed = int(item.id.split("-")[1])
        scene = shapes.draw_scene(seed)
        assert item.error is None and item.references == (item.answer,)
        assert np.array_equal(np.asarray(item.image), np.asarray(scene.image))
        assert np.array_equal(item.masks(), scene.masks)
        assert [region.label for region in item.regions] == [f"{one.color} {one.shape}" for one in scene.objects]


@pytest.mark.parametrize("scenes", LAYOUTS)
@pytest.mark.parametrize("questions", ["trained", "harder"])
def test_phrases_are_the_visual_words(scenes, questions):
    for item in read("shapes", count=8, scenes=scenes, questions=questions):
        assert item.phrases
        for phrase in item.phrases:
            word = item.answer[phrase.start : phrase.stop]
            assert word == word.strip() and word
            if word in (*shapes.COLORS, *shapes.SHAPES):
                assert all(word in item.regions[index].label.split() for index in phrase.regions)


def test_harder_questions_come_once_a_kind():
    item, *_ = [
        one for one in read("shapes", count=20, scenes="crowd", questions="harder") if "How many" in one.question
    ]
    assert item.answer.startswith("There ")
    texts = [one.question.split()[0] for one in read("shapes", count=1, scenes="overlapping", questions="harder")]
    assert texts == ["How", "Is", "What"]


def test_the_same_seed_gives_the_same_items_and_they_pickle():
    first, again = (read("shapes", count=2, scenes="crowd") for _ in range(2))
    copied = pickle.loads(pickle.dumps(first))
    for a, b, c in zip(first, again, copied, strict=True):
        assert (a.id, a.question, a.answer, a.phrases) == (b.id, b.question, b.answer, b.phrases)
        assert np.array_equal(np.asarray(a.image), np.asarray(c.image)) and np.array_equal(a.masks(), c.masks())


def test_a_caller_who_paints_over_a_picture_spoils_it_for_nobody():
    item = read("shapes", count=1)[0]
    item.image.paste("white", (0, 0, 384, 384))
    item.masks()[:] = True
    assert np.asarray(item.image).std() > 0 and not item.masks().all()


def test_unknown_scenes_or_questions_are_refused():
    known = {"scenes": "plain, overlapping, crowd, not 'empty'", "questions": "trained, harder, not 'easy'"}
    for wrong in ({"scenes": "empty"}, {"questions": "easy"}):
        (name,) = wrong
        with pytest.raises(InputError, match=f"{name} is one of {known[name]}"):
            read("shapes", **wrong)


def test_one_question_of_each_scene_and_words_of_one_kind():
    every, one = read("shapes", count=20), read("shapes", count=20, asked="one")
    assert set(one.ids) < set(every.ids) and len({name.rsplit("-", 1)[0] for name in one.ids}) == len(one) == 20
    assert len({name[-1] for name in one.ids}) > 2  # not always the same question
    assert one.ids == read("shapes", count=20, asked="one").ids
    named = read("shapes", count=20, words="shape")
    for item, full in zip(named, every, strict=True):
        said = {item.answer[phrase.start : phrase.stop] for phrase in item.phrases}
        assert said <= set(shapes.SHAPES) and set(item.phrases) <= set(full.phrases)
    with pytest.raises(InputError, match="words is one of all, color"):
        read("shapes", words="filler")
    with pytest.raises(InputError, match="asked is one of all, one"):
        read("shapes", asked="two")
