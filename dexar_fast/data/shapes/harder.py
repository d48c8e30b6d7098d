"""What the embedded model was not trained to answer: counts, relations, questions that presuppose what is absent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations

from dexar_fast.data.shapes.layouts import SIDEWAYS, Placed, covers
from dexar_fast.data.shapes.outlines import SHAPES
from dexar_fast.data.shapes.words import Question, Word, fillers, pair
from dexar_fast.errors import InputError

NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
OPPOSITES = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
    "in front of": "behind",
    "behind": "in front of",
}


def how_many(objects: Sequence[Placed], shape: str) -> Question:
    """'How many stars are there?' 'There are two stars.', 'There is one star.' or 'There are no stars.'"""
    group = tuple(index for index, item in enumerate(objects) if item.shape == shape)
    many = f"{shape}es" if shape.endswith("s") else f"{shape}s"
    opening, noun = ("There is", shape) if len(group) == 1 else ("There are", many)
    number = Word(f" {NUMBERS[len(group)]}", "number", group=group)
    words = (*fillers(opening), number, Word(f" {noun}", "shape", group=group), Word("."))
    return Question("how_many", f"How many {many} are there?", words, (2,))


def is_placed(objects: Sequence[Placed], a: int, b: int, claim: str) -> Question:
    """'Is the red star left of the blue cross?' 'Yes, the red star is left of the blue cross.', or 'No, ...'.

    Raises:
        InputError: `claim` is neither what `placed` says of the two nor its opposite.
    """
    true = placed(objects[a], objects[b])
    if true is None or claim not in (true, OPPOSITES[true]):
        raise InputError(f"claim {claim!r} is neither what placed() says of the two, {true!r}, nor its opposite")
    opening = "Yes, the" if claim == true else "No, the"
    first, second = pair(objects[a], a), pair(objects[b], b)
    relation = [Word(word.text, "relation", group=(a, b)) for word in fillers(f" {true}")]
    words = (*fillers(opening), *first, Word(" is"), *relation, Word(" the"), *second, Word("."))
    names = ["".join(word.text for word in two) for two in (first, second)]
    return Question("relation", f"Is the{names[0]} {claim} the{names[1]}?", words, (0,))


def placed(a: Placed, b: Placed) -> str | None:
    """How a lies to b: by which of the two is in front where they overlap, else by the larger distance.

    None if that distance is too small to tell.
    """
    if covers(a, b) or covers(b, a):
        return "in front of" if a.layer > b.layer else "behind"
    x, y = a.x - b.x, a.y - b.y
    if max(abs(x), abs(y)) < SIDEWAYS:
        return None
    if abs(x) >= abs(y):
        return "left of" if x < 0 else "right of"
    return "above" if y < 0 else "below"


def color_of_absent(objects: Sequence[Placed], shape: str) -> Question:
    """'What color is the star?' 'There is no star.', where there is none: the question presupposes what is absent.

    Raises:
        InputError: the shape is there.
    """
    if shape in {item.shape for item in objects}:
        raise InputError(f"there is a {shape} in this layout: ask for the color of a shape that is absent")
    words = (*fillers("There is no"), Word(f" {shape}", "shape"), Word("."))
    return Question("premise", f"What color is the {shape}?", words, (2,))


def harder_questions(objects: Sequence[Placed]) -> list[Question]:
    """Every count of a shape, every relation of two objects that are each unique, claimed rightly and wrongly, and the
    colour of every shape that is absent."""
    absent = [shape for shape in SHAPES if shape not in {item.shape for item in objects}]
    return [
        *(how_many(objects, shape) for shape in SHAPES),
        *_relations(objects),
        *(color_of_absent(objects, shape) for shape in absent),
    ]


def _relations(objects: Sequence[Placed]) -> list[Question]:
    alike = Counter((item.color, item.shape) for item in objects)
    single = [index for index, item in enumerate(objects) if alike[item.color, item.shape] == 1]
    found = [(a, b, placed(objects[a], objects[b])) for a, b in permutations(single, 2)]
    return [
        is_placed(objects, a, b, claim) for a, b, true in found if true is not None for claim in (true, OPPOSITES[true])
    ]
