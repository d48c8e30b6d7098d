"""What happens at each click, and the names under which an API client asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import gradio as gr

from dexar_fast.serve.page.answers import Answers
from dexar_fast.serve.page.examples import Example
from dexar_fast.serve.page.layout import NONE, Layout
from dexar_fast.serve.visits import Shown
from dexar_fast.serve.work.asking import Choices

SAVED = {"report": "The report, HTML,", "arrays": "The numbers, safetensors,", "gif": "The animation, GIF,"}
DEVICE = "device"  # one event at a time of all that use the model
ALL = tuple(field.name for field in fields(Shown))
CHECKED, REPORT = ("frame", "said"), ("frame", "said", "changes")
HIDDEN, HOTTEST = ("said", "changes"), ("said", "changes", "brush")


def connect(page: gr.Blocks, layout: Layout, answers: Answers, examples: Sequence[Example]) -> None:
    """Ties the components of a page to what they do."""
    asked = _asking(layout, answers, examples)
    others = [*_editing(layout, answers), *_hiding(layout, answers), _checking(layout, answers)]
    _saving(layout, answers)

    def stop(request: gr.Request) -> list[Any]:
        return next(_values(ALL, [answers.stopped(request)]))

    shown = [getattr(layout, name) for name in ALL]
    layout.stop.click(stop, None, shown, cancels=[*asked, *others], show_progress="hidden", **_quiet())

    def ended(request: gr.Request) -> None:
        answers.visits.end(str(request.session_hash))

    # What Gradio keeps of a session would stay for an hour.
    answers.visits.also = lambda session: page.app.state_holder.session_data.pop(session, None)
    page.unload(ended)


def _asking(layout: Layout, answers: Answers, examples: Sequence[Example]) -> list[Any]:
    """Ask, by button, Enter or example; ask next."""

    def ask(
        request: gr.Request, model: str, pictures: Any, question: str, method: str, compare_with: str, layers: str,
        text_set: str, text_relevance: bool, by: str, tokens: float,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Asks about pictures, and explains the answer while it is written."""
        choices = _choices(method, compare_with, layers, text_set, text_relevance, by, tokens)
        yield from _values(ALL, answers.asked(model, pictures, question, choices, request))

    def follow(
        request: gr.Request, question: str, method: str, compare_with: str, layers: str, text_set: str,
        text_relevance: bool, by: str, tokens: float, pictures: Any = None, model: str | None = None,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Asks the next question about the same pictures, behind the last answer; other pictures are refused."""
        choices = _choices(method, compare_with, layers, text_set, text_relevance, by, tokens)
        yield from _values(ALL, answers.followed(question, choices, request, pictures, model))

    def example(event: gr.EventData) -> tuple[Any, str]:
        chosen = examples[event.n]
        return [{"name": f"example {n}", "data": uri} for n, uri in enumerate(chosen.pictures, 1)], chosen.question

    inputs = [layout.model, layout.pictures, layout.question, *layout.choices]
    named = _on_device(layout, ALL)
    clicked = layout.examples.click(example, None, [layout.pictures, layout.question], **_quiet())
    return [
        layout.ask.click(ask, inputs, api_name="ask", **named),
        layout.question.submit(ask, inputs, **named | _quiet()),
        clicked.then(ask, inputs, **named | _quiet()),
        layout.follow.click(follow, [*inputs[2:], layout.pictures, layout.model], api_name="follow", **named),
    ]


def _editing(layout: Layout, answers: Answers) -> list[Any]:
    def explain(
        request: gr.Request, answer: str, method: str, compare_with: str, layers: str, text_set: str,
        text_relevance: bool, by: str, tokens: float,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Explains an answer of one's own to the last question."""
        choices = _choices(method, compare_with, layers, text_set, text_relevance, by, tokens)
        yield from _values(REPORT, answers.explained(answer, choices, request))

    def compare(
        request: gr.Request, answer: str, method: str, compare_with: str, layers: str, text_set: str,
        text_relevance: bool, by: str, tokens: float,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Explains the model's answer and one's own side by side, by one method."""
        choices = _choices(method, compare_with, layers, text_set, text_relevance, by, tokens)
        yield from _values(REPORT, answers.compared(answer, choices, request))

    inputs, named = [layout.answer, *layout.choices], _on_device(layout, REPORT)
    return [
        layout.explain.click(explain, inputs, api_name="explain", **named),
        layout.compare.click(compare, inputs, api_name="compare", **named),
    ]


def _hiding(layout: Layout, answers: Answers) -> list[Any]:
    def hide(painted: Any, request: gr.Request) -> Iterator[list[Any]]:
        """Hides what is painted: the probability of each token before and after."""
        masks = painted.get("masks") if isinstance(painted, dict) else None
        yield from _values(HIDDEN, answers.hidden(masks or [], request))

    def hide_top(request: gr.Request) -> Iterator[list[Any]]:
        """Hides the hottest tenth of the answer's map and paints it: each token's probability before and after."""
        yield from _values(HOTTEST, answers.hidden(None, request))

    return [
        layout.hide.click(hide, layout.brush, api_name="hide", **_on_device(layout, HIDDEN)),
        layout.hide_top.click(hide_top, None, api_name="hide_top", **_on_device(layout, HOTTEST)),
    ]


def _checking(layout: Layout, answers: Answers) -> Any:
    def check(request: gr.Request) -> Iterator[list[Any]]:
        """Whether the map shows what the answer rests on."""
        yield from _values(CHECKED, answers.checked(request))

    return layout.check.click(check, None, api_name="check", **_on_device(layout, CHECKED))


def _saving(layout: Layout, answers: Answers) -> None:
    def save(kind: str, what: str) -> Callable[[gr.Request], list[Any]]:
        def saved(request: gr.Request) -> list[Any]:
            return [*answers.saved(kind, request)]

        saved.__doc__ = f"{what} of the last answer, in base64."
        return saved

    for button, (kind, what) in zip(layout.saves, SAVED.items(), strict=True):
        button.click(save(kind, what), None, [layout.saver, layout.said], api_name=kind, show_progress="hidden")


def _choices(method: str, other: str, layers: str, text_set: str, relevance: bool, by: str, tokens: Any) -> Choices:
    other_or_none = None if other in (None, NONE) else other
    return Choices(method, other_or_none, layers or "", text_set, bool(relevance), by, tokens)


def _values(names: Sequence[str], shown: Iterable[Shown]) -> Iterator[list[Any]]:
    """Of each state the named values, in order; always all of them.

    For each "no change" Gradio would make a component anew, and keep it.
    """
    for each in shown:
        yield [getattr(each, name) for name in names]


def _on_device(layout: Layout, names: Sequence[str]) -> dict[str, Any]:
    shown = [getattr(layout, name) for name in names]
    return {"outputs": shown, "concurrency_id": DEVICE, "concurrency_limit": 1, "show_progress": "hidden"}


def _quiet() -> dict[str, Any]:
    return {"api_visibility": "private"}
