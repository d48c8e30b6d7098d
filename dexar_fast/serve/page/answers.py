"""What a click computes, as the values of the components: states of the frame, lines to say, turns, tables."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from dexar_fast.errors import DexarError, InputError
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.report import words
from dexar_fast.serve import uploads
from dexar_fast.serve.limits import Limits, Rate, checked_text
from dexar_fast.serve.models import Models
from dexar_fast.serve.page import lines
from dexar_fast.serve.visits import Shown, Visit, Visits
from dexar_fast.serve.work import asking, files
from dexar_fast.serve.work.asking import Asked, Choices
from dexar_fast.serve.work.changes import changes
from dexar_fast.serve.work.growing import Growing, page
from dexar_fast.serve.work.thread import Work

log = logging.getLogger(__name__)
DRAWS = 19  # then a blind map is above them all one time in twenty


@dataclass(frozen=True)
class Answers:
    """The server's side of the page."""

    models: Models
    limits: Limits
    chunk: int
    visits: Visits = field(default_factory=Visits)
    rate: Rate = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", Rate(self.limits.a_minute))

    def asked(self, model: str, pictures: Any, question: str, choices: Choices, caller: gr.Request) -> Iterator[Shown]:
        """The answer to a question about new pictures."""
        return self._run(caller, lambda visit: self._ask(visit, model, pictures, question, choices))

    def followed(
        self, question: str, choices: Choices, caller: gr.Request, pictures: Any = None, model: str | None = None
    ) -> Iterator[Shown]:
        """The answer to the next question of the visit; pictures and model: what the page shows, if it does."""
        return self._run(caller, lambda visit: self._follow(visit, question, choices, pictures, model))

    def explained(self, answer: str, choices: Choices, caller: gr.Request) -> Iterator[Shown]:
        """The explanation of an edited answer, as the switches say now."""
        return self._run(caller, lambda visit: self._explain(visit, answer, choices))

    def compared(self, answer: str, choices: Choices, caller: gr.Request) -> Iterator[Shown]:
        """The model's answer beside an edited one, as the switches say now."""
        return self._run(caller, lambda visit: self._compare(visit, answer, choices))

    def hidden(self, masks: Any, caller: gr.Request) -> Iterator[Shown]:
        """What hiding the painted part changes; without masks, hiding the hottest part of the map."""
        return self._run(caller, lambda visit: self._hide(visit, masks))

    def checked(self, caller: gr.Request) -> Iterator[Shown]:
        """Whether the map shows what the answer rests on."""
        return self._run(caller, self._check)

    def stopped(self, caller: gr.Request) -> Shown:
        """The page after what ran for it was ended: an answer stands as far as it was written."""
        visit = self.visits.known(str(caller.session_hash))
        frame = visit.shown.frame or {}
        if "chips" not in frame:
            return visit.show(Shown(said=lines.news("Stopped.")))
        asked, _ = visit.answered()
        state = {"run": frame["run"], "page": frame["page"]}
        state["final"] = page(visit.explanations, visit.titles, asked.choices.by)
        return visit.show(Shown(state, lines.news(f"Stopped after: {visit.answer}"), brush=_to_paint(asked)))

    def saved(self, kind: str, caller: gr.Request) -> tuple[dict[str, Any] | None, lines.Line]:
        """The report, the arrays or the animation of the last answer, and a line; no file where there is none."""
        visit = self.visits.known(str(caller.session_hash))
        try:
            return self._file(visit, kind), lines.saved(kind, visit.titles)
        except DexarError as error:
            return None, lines.refused(str(error))

    def _file(self, visit: Visit, kind: str) -> dict[str, Any]:
        asked, first = visit.answered()
        by = asked.choices.by
        if kind == "report":
            return files.report(visit.explanations, visit.titles, by)
        return files.gif(first, by) if kind == "gif" else files.arrays(visit.explanations, visit.titles)

    def _run(self, caller: gr.Request, make: Callable[[Visit], Iterable[Shown]]) -> Iterator[Shown]:
        """What `make` shows, in a thread that ends with the iterator; a refusal is a line to say."""
        session, work = str(caller.session_hash), None
        visit = self.visits.known(session)
        try:
            self.rate.count(caller.client.host if caller.client else "")
            visit = self.visits.of(session)
            work = visit.work = Work(lambda: make(visit), self.limits.seconds)
            for shown in work:
                yield visit.show(shown or Shown())
        except DexarError as error:
            yield visit.show(Shown(said=lines.refused(str(error))))
        except Exception as error:
            log.error("%s in\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
            yield visit.show(Shown(said=lines.refused(lines.FAULT)))
        finally:
            if work is not None:  # its own: Gradio may have begun the visit's next one
                work.close()

    def _ask(self, visit: Visit, model: str, pictures: Any, question: str, choices: Choices) -> Iterator[Shown]:
        self.models.of(model)
        if not pictures and not str(question or "").strip():
            raise InputError("no picture and no question yet: drop a picture and ask about it, or take an example")
        text = checked_text("question", question, self.limits.letters)
        given = uploads.read(pictures, self.limits)
        yield from self._answered(visit, Asked(model, given, text, (), self._within(choices)))

    def _follow(
        self, visit: Visit, question: str, choices: Choices, pictures: Any, model: str | None
    ) -> Iterator[Shown]:
        before, explanation = visit.answered()
        if pictures and uploads.uris(pictures) != before.given.uris:
            raise InputError("these are not the pictures of the answer: “Ask” begins anew with them")
        if model not in (None, before.model):
            raise InputError("another model is chosen than the one that answered: “Ask” begins anew with it")
        text = checked_text("question", question, self.limits.letters)
        turns = (*before.turns, (before.text, explanation.text.strip()))
        yield from self._answered(visit, Asked(before.model, before.given, text, turns, self._within(choices)))

    def _within(self, choices: Choices) -> Choices:
        most: Any = choices.tokens  # as a client sends it
        if not isinstance(most, int | float) or not 1 <= most <= self.limits.tokens:
            raise InputError(f"an answer has from 1 to {self.limits.tokens} tokens here, not {most!r}")
        words.check(choices.by)
        return replace(choices, tokens=int(most))

    def _answered(self, visit: Visit, asked: Asked) -> Iterator[Shown]:
        base = self.models.of(asked.model)
        yield Shown(said=lines.begins(asked, base), turns=list(asked.turns), changes={})
        if asked.choices.other is not None:
            found = asking.by_two_methods(base, asked, asked.choices.other)
            visit.answer = found[0].text.strip()
            yield self._side_by_side(visit, asked, list(found), found.names)
            return
        growing = Growing(asked.model)
        for piece, explanation in asking.written(base, asked, self.chunk):
            if piece is None:
                yield self._whole(visit, asked, growing, explanation)
            else:
                self._remember(visit, asked, explanation)
                yield Shown(growing.take(piece, explanation), lines.busy("Writing the answer …"), answer=visit.answer)

    def _whole(self, visit: Visit, asked: Asked, growing: Growing, explanation: Explanation) -> Shown:
        self._remember(visit, asked, explanation)
        state, text = growing.end(explanation, asked.choices.by), visit.answer
        return Shown(state, lines.answered(asked, explanation), answer=text, brush=_to_paint(asked))

    def _remember(self, visit: Visit, asked: Asked, explanation: Explanation) -> None:
        """So that the tools work on an answer that was stopped, too, as far as it was written."""
        visit.asked, visit.explanations, visit.titles = asked, [explanation], [asked.model]
        visit.answer = explanation.text.strip()

    def _side_by_side(self, visit: Visit, asked: Asked, found: list[Explanation], titles: list[str]) -> Shown:
        visit.asked, visit.explanations, visit.titles = asked, found, titles
        text = found[0].text.strip()
        state = {"page": page(found, titles, asked.choices.by)}
        return Shown(state, lines.news(f"Side by side: {' | '.join(titles)}"), answer=text, brush=_to_paint(asked))

    def _explain(self, visit: Visit, answer: str, choices: Choices) -> Iterator[Shown]:
        asked, text = self._edited(visit, answer, choices)
        yield Shown(said=lines.busy(f"Explaining the edited answer by {choices.names} …"), changes={})
        base = self.models.of(asked.model)
        if choices.other is not None:
            found = asking.by_two_methods(base, asked, choices.other, text)
            yield self._side_by_side(visit, asked, list(found), found.names)
            return
        explanation = asking.given_answer(base, asked, text)
        visit.asked, visit.explanations, visit.titles = asked, [explanation], [asked.model]
        state = {"page": page(visit.explanations, visit.titles, choices.by)}
        yield Shown(state, lines.news(f"Explained by {choices.method}: {text}"))

    def _compare(self, visit: Visit, answer: str, choices: Choices) -> Iterator[Shown]:
        asked, text = self._edited(visit, answer, replace(choices, other=None))
        yield Shown(said=lines.busy(f"Explaining both answers by {choices.method} …"), changes={})
        found = asking.two_answers(self.models.of(asked.model), asked, [visit.answer, text])
        yield self._side_by_side(visit, asked, list(found), found.names)

    def _edited(self, visit: Visit, answer: str, choices: Choices) -> tuple[Asked, str]:
        """The last question with other choices, and the answer that was typed."""
        asked, _ = visit.answered()
        return replace(asked, choices=self._within(choices)), checked_text("answer", answer, self.limits.letters)

    def _hide(self, visit: Visit, painted: Any) -> Iterator[Shown]:
        asked, explanation = visit.answered()
        masks = None if painted is None else uploads.masks(painted, len(explanation.images))
        brush = _to_paint(asked) if masks is None else None
        yield Shown(said=lines.busy("Hiding it …"), brush=brush)
        found = changes(self._explainer(asked), explanation, masks)
        line = lines.hidden(found, visit.titles, hottest=masks is None)
        yield Shown(said=line, brush=brush and brush | {"masks": found["masks"]}, changes=found)

    def _check(self, visit: Visit) -> Iterator[Shown]:
        asked, explanation = visit.answered()
        yield Shown(said=lines.busy("Hiding the top of the map, and random places …"))
        evidence = self._explainer(asked).check(explanation, draws=DRAWS)
        state = {"page": page(visit.explanations, visit.titles, asked.choices.by)}
        yield Shown(state, lines.checked(evidence, visit.titles))

    def _explainer(self, asked: Asked) -> Explainer:
        return asked.choices.explainer(self.models.of(asked.model))


def _to_paint(asked: Asked) -> dict[str, Any]:
    return {"pictures": asked.given.uris}
