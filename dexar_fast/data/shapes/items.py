"""The Shapes set as a data set."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from PIL import Image

from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item, Mask, Phrase, Region
from dexar_fast.data.shapes.harder import harder_questions
from dexar_fast.data.shapes.layouts import Layout, crowd, layout, overlapping
from dexar_fast.data.shapes.questions import sample_questions
from dexar_fast.data.shapes.scenes import Scene, paint
from dexar_fast.data.shapes.words import Question
from dexar_fast.errors import InputError

WORDS = ("all", "color", "shape", "number", "relation")
LAYOUTS = {"plain": layout, "overlapping": overlapping, "crowd": crowd}
FIRST_SEED = 10_000_000  # the embedded model has seen no scene from here on


def read(
    count: int = 100,
    scenes: str = "plain",
    questions: str = "trained",
    first_seed: int = FIRST_SEED,
    asked: str = "all",
    words: str = "all",
) -> DataSet:
    """Scenes drawn here, with an item for each question. Regions are the objects; phrases without regions name what is
    not there.

    Args:
        count: of scenes, each with two to five questions.
        scenes: plain, overlapping (one object hides a part of another) or crowd (up to six, some of them alike).
        questions: trained (the kinds that the embedded model has learnt) or harder (counts, relations, what is absent).
        first_seed: of the first scene; the others follow it.
        asked: all of a scene's questions, or one of them, so that no two items share a picture.
        words: which are phrases: all that are visual, or those of a kind: color, shape, number or relation.
    Raises:
        InputError: no such scenes, questions or words.
    """
    _check(scenes=(scenes, LAYOUTS), questions=(questions, _ASKED), asked=(asked, ("all", "one")), words=(words, WORDS))
    records = []
    for seed in range(first_seed, first_seed + count):
        found = _ASKED[questions](LAYOUTS[scenes](seed), np.random.default_rng([seed, 4]))
        chosen = range(len(found)) if asked == "all" else [int(np.random.default_rng([seed, 5]).integers(len(found)))]
        records += [(seed, index, found[index]) for index in chosen]
    return DataSet("shapes", records, partial(_item, scenes, words), partial(_name, scenes))


def _check(**options: tuple[str, Iterable[str]]) -> None:
    for name, (given, known) in options.items():
        if given not in known:
            raise InputError(f"shapes: {name} is one of {', '.join(known)}, not {given!r}")


def _harder(objects: Layout, rng: np.random.Generator) -> list[Question]:
    """One question of each kind that the scene answers."""
    pools: dict[str, list[Question]] = {}
    for question in harder_questions(objects):
        pools.setdefault(question.kind, []).append(question)
    return [pool[int(rng.integers(len(pool)))] for pool in pools.values()]


_ASKED = {"trained": sample_questions, "harder": _harder}


def _name(scenes: str, record: tuple[int, int, Question]) -> str:
    return f"{scenes}-{record[0]}-{record[1]}"


def _item(scenes: str, words: str, name: str, record: tuple[int, int, Question]) -> Item:
    seed, _, question = record
    objects = LAYOUTS[scenes](seed)
    return Item(
        name,
        partial(_picture, scenes, seed),
        question.text,
        question.answer,
        references=(question.answer,),
        regions=tuple(
            Region(f"{one.color} {one.shape}", outline=partial(_mask, scenes, seed, index))
            for index, one in enumerate(objects)
        ),
        phrases=_phrases(question, words),
    )


def _phrases(question: Question, words: str) -> tuple[Phrase, ...]:
    stops = np.cumsum([len(word.text) for word in question.words]).tolist()
    return tuple(
        Phrase(stop - len(word.text.lstrip()), stop, word.group if word.index is None else (word.index,))
        for stop, word in zip(stops, question.words, strict=True)
        if word.kind == words or (words == "all" and word.kind != "filler")
    )


@lru_cache(maxsize=4)  # the picture and each mask of an item come from one scene
def _scene(scenes: str, seed: int) -> Scene:
    return paint(LAYOUTS[scenes](seed), seed)


def _picture(scenes: str, seed: int) -> Image.Image:
    return _scene(scenes, seed).image.copy()


def _mask(scenes: str, seed: int, index: int, *_: Any) -> Mask:
    return _scene(scenes, seed).masks[index].copy()
