"""What the embedded model was trained to answer: a description, lookups, what is there and what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Literal

import numpy as np

from dexar_fast.data.shapes.layouts import Placed
from dexar_fast.data.shapes.outlines import COLORS, SHAPES
from dexar_fast.data.shapes.words import Question, QuestionKind, Word, fillers, pair

QUESTION_KINDS: tuple[QuestionKind, ...] = ("describe", "what_color", "which_shape", "is_there")


def describe(objects: Sequence[Placed]) -> Question:
    """'A red circle, a blue square and a green star.', left to right."""
    words: list[Word] = []
    for index, item in enumerate(objects):
        last = index == len(objects) - 1
        words += fillers("A" if index == 0 else " and a" if last else ", a") + pair(item, index)
    words += fillers(".")
    asked = tuple(i for i, word in enumerate(words) if word.kind != "filler")
    return Question("describe", "Describe the image.", tuple(words), asked)


def what_color(objects: Sequence[Placed], index: int) -> Question:
    """'What color is the circle?' 'The circle is red.'; object `index` must be the only one of its shape."""
    color, shape = pair(objects[index], index)
    words = (Word("The"), shape, Word(" is"), color, Word("."))
    return Question("what_color", f"What color is the{shape.text}?", words, (3,))


def which_shape(objects: Sequence[Placed], index: int) -> Question:
    """'Which shape is red?' 'The red shape is a circle.'; object `index` must be the only one of its colour."""
    color, shape = pair(objects[index], index)
    words = (Word("The"), color, *fillers(" shape is a"), shape, Word("."))
    return Question("which_shape", f"Which shape is{color.text}?", words, (5,))


def is_there(objects: Sequence[Placed], color: str, shape: str) -> Question:
    """'Is there a red circle?' 'Yes, there is a red circle.' or 'No, there is no red circle.'"""
    pairs = [(item.color, item.shape) for item in objects]
    index = pairs.index((color, shape)) if (color, shape) in pairs else None
    opening = "No, there is no" if index is None else "Yes, there is a"
    words = (
        *fillers(opening),
        Word(f" {color}", "color", index),
        Word(f" {shape}", "shape", index),
        Word("."),
    )
    return Question("is_there", f"Is there a {color} {shape}?", words, (0,))


def color_questions(objects: Sequence[Placed]) -> list[Question]:
    """One `what_color` for every shape that occurs once."""
    counts = Counter(item.shape for item in objects)
    return [what_color(objects, i) for i, item in enumerate(objects) if counts[item.shape] == 1]


def shape_questions(objects: Sequence[Placed]) -> list[Question]:
    """One `which_shape` for every colour that occurs once."""
    counts = Counter(item.color for item in objects)
    return [which_shape(objects, i) for i, item in enumerate(objects) if counts[item.color] == 1]


def present_questions(objects: Sequence[Placed]) -> list[Question]:
    """One `is_there` answered yes for every object."""
    return [is_there(objects, item.color, item.shape) for item in objects]


def absent_questions(objects: Sequence[Placed], level: Literal["hard", "half", "easy"]) -> list[Question]:
    """Every `is_there` answered no at a level.

    hard: colour and shape both occur, on different objects; half: one of them occurs; easy: neither does.
    """
    pairs = {(item.color, item.shape) for item in objects}
    colors, shapes = {color for color, _ in pairs}, {shape for _, shape in pairs}
    wanted = {"hard": 2, "half": 1, "easy": 0}[level]
    return [
        is_there(objects, color, shape)
        for color, shape in product(COLORS, SHAPES)
        if (color, shape) not in pairs and (color in colors) + (shape in shapes) == wanted
    ]


def sample_questions(objects: Sequence[Placed], rng: np.random.Generator) -> list[Question]:
    """The questions that judge one scene: describe, one of each possible lookup, one with yes and one with no."""
    absent = absent_questions(objects, "hard") if rng.random() < 0.5 else []
    absent = absent or absent_questions(objects, "half" if rng.random() < 0.5 else "easy")
    pools = [color_questions(objects), shape_questions(objects), present_questions(objects), absent]
    return [describe(objects)] + [pool[int(rng.integers(len(pool)))] for pool in pools if pool]
