"""A question, and its answer in labelled words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dexar_fast.data.shapes.layouts import Placed

WordKind = Literal["color", "shape", "number", "relation", "filler"]
QuestionKind = Literal["describe", "what_color", "which_shape", "is_there", "premise", "how_many", "relation"]


@dataclass(frozen=True)
class Word:
    """A piece of an answer with its leading space.

    `index` is the object that a visual word names, else None; `group` are those of a plural, a number or a relation.
    """

    text: str
    kind: WordKind = "filler"
    index: int | None = None
    group: tuple[int, ...] = ()


@dataclass(frozen=True)
class Question:
    """A question with its answer in words. `asked` are the positions of the words the question asks for."""

    kind: QuestionKind
    text: str
    words: tuple[Word, ...]
    asked: tuple[int, ...]

    @property
    def answer(self) -> str:
        return "".join(word.text for word in self.words)


def fillers(text: str) -> list[Word]:
    """Filler words of a phrase; commas and full stops are words of their own."""
    pieces = text.replace(",", "\0,").replace(".", "\0.").replace(" ", "\0 ").split("\0")
    return [Word(piece) for piece in pieces if piece]


def pair(item: Placed, index: int) -> list[Word]:
    """Colour and shape of an object."""
    return [Word(f" {item.color}", "color", index), Word(f" {item.shape}", "shape", index)]
