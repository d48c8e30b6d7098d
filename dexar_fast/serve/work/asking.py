"""A question, and the ways to answer it: written token by token, as a whole, by two methods, with two answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dexar_fast.comparison import Comparison
from dexar_fast.errors import InputError
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.generation.stream import Piece
from dexar_fast.methods.base import Streaming
from dexar_fast.methods.dex_ar import DexAr
from dexar_fast.serve.uploads import Given
from dexar_fast.settings import settings

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Choices:
    """How to explain: what the page's switches say.

    Attributes:
        method: its name. other: that of a second one to compare with, or none.
        layers: "all" or "" for all, or "0,1,-1".
        text_set, text_relevance: as in `dexar_fast.settings.Settings`; of "dex-ar".
        by: what the page shows as one, "token" or "word".
        tokens: the most that an answer has.
    """

    method: str = DexAr.name
    other: str | None = None
    layers: str = "all"
    text_set: str = "all"
    text_relevance: bool = False
    by: str = "token"
    tokens: int = 128

    @property
    def names(self) -> str:
        """Of the method, or of both."""
        return self.method if self.other is None else f"{self.method} and {self.other}"

    def explainer(self, base: Explainer) -> Explainer:
        """One by the method with its knobs. Raises InputError."""
        if self.method != DexAr.name:
            return base.with_method(self.method)
        layers = _layers(self.layers)
        knobs = settings(layers, "max", None, text_set=self.text_set, text_relevance=self.text_relevance)
        return base.with_method(DexAr(**vars(knobs)))


@dataclass(frozen=True)
class Asked:
    """A question about pictures, behind the turns before it."""

    model: str
    given: Given
    text: str
    turns: tuple[tuple[str, str], ...]
    choices: Choices

    @property
    def prompt(self) -> str | Messages:
        """The text alone, or the whole dialogue as chat messages."""
        if not self.turns:
            return self.text
        images = [{"type": "image"}] * len(self.given.pictures)
        said = [(role, text) for turn in self.turns for role, text in zip(("user", "assistant"), turn, strict=True)]
        contents = [[*(images if n == 0 else []), _words(text)] for n, (_, text) in enumerate(said)]
        past = [{"role": role, "content": content} for (role, _), content in zip(said, contents, strict=True)]
        return [*past, {"role": "user", "content": [_words(self.text)]}]


def written(base: Explainer, asked: Asked, chunk: int) -> Iterator[tuple[Piece | None, Explanation]]:
    """The pieces of an answer, each with the explanation so far; then (None, that of the whole answer)."""
    explainer, pictures = asked.choices.explainer(base), asked.given.pictures
    if not streams(explainer):
        yield None, named(explainer.explain(pictures, asked.prompt, max_new_tokens=asked.choices.tokens), asked)
        return
    with explainer.stream(pictures, asked.prompt, chunk_size=chunk, max_new_tokens=asked.choices.tokens) as pieces:
        for piece in pieces:
            yield named(piece, asked), named(pieces.explanation(), asked)
        yield None, named(pieces.explanation(), asked)


def by_two_methods(base: Explainer, asked: Asked, other: str, answer: str | None = None) -> Comparison:
    """One answer, the model's own unless it is given, explained by the chosen method and by another."""
    explainer = asked.choices.explainer(base)
    methods = [explainer.method, base.with_method(other).method]
    most = asked.choices.tokens if answer is None else None
    found = explainer.compare(asked.given.pictures, asked.prompt, methods, answer, max_new_tokens=most)
    return Comparison(found.names, [named(each, asked) for each in found])


def given_answer(base: Explainer, asked: Asked, answer: str) -> Explanation:
    """The explanation of an answer that the visitor wrote."""
    return named(asked.choices.explainer(base).explain(asked.given.pictures, asked.prompt, response=answer), asked)


def two_answers(base: Explainer, asked: Asked, answers: Sequence[str]) -> Comparison:
    """The explanations of two answers to one question. Raises InputError where they are the same."""
    if answers[0].strip() == answers[1].strip():
        raise InputError("the edited answer is still the model's: change it, then compare")
    found = asked.choices.explainer(base).explain_many(asked.given.pictures, [asked.prompt], [list(answers)])
    return Comparison([answer.strip() for answer in answers], [named(each, asked) for each in found])


def streams(explainer: Explainer) -> bool:
    """Whether the method can explain an answer while it is written."""
    method = explainer.method
    return isinstance(method, DexAr) or (isinstance(method, Streaming) and method.streams)


def named(found: Any, asked: Asked) -> Any:
    """The explanation itself; the frames of a video have their times."""
    if asked.given.frames:
        found.metadata["frames"] = asked.given.frames
    return found


def _words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _layers(text: str) -> list[int] | None:
    try:
        return [int(part) for part in text.split(",")] if text.strip() not in ("", "all") else None
    except ValueError:
        raise InputError(f"{text[:40]!r} is no list of layers: write 0,1,-1 (negative from the end)") from None
