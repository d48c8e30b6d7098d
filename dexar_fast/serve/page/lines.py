"""What the line of news says: what runs, what came of it, why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.metrics.hiding.evidence import DRAWN_AT, LEAST, Evidence
from dexar_fast.serve.work import asking
from dexar_fast.serve.work.asking import Asked

Line = dict[str, str]
STEADY = 0.005  # less is no change: two digits would show none
FAULT = "A fault of dexar-fast; the server's log says where. The next question is not affected."


def busy(text: str) -> Line:
    """What runs."""
    return {"kind": "busy", "text": text}


def news(text: str) -> Line:
    """What came of it."""
    return {"kind": "news", "text": text}


def refused(text: str) -> Line:
    """Why nothing came of it."""
    return {"kind": "error", "text": text[:1].upper() + text[1:]}


def begins(asked: Asked, base: Explainer) -> Line:
    """Before anything can be shown."""
    if asked.choices.other is None and asking.streams(asked.choices.explainer(base)):
        return busy("Reading the picture …")
    return busy(f"Writing the answer, then explaining it by {asked.choices.names} …")


def answered(asked: Asked, explanation: Explanation) -> Line:
    """An answer, and that it was cut where it was."""
    most = asked.choices.tokens
    tokens = "one token" if most == 1 else f"{most} tokens"
    cut = f" (cut at {tokens}, the most that it may have)" if len(explanation) >= most else ""
    return news(f"Answered: {explanation.text.strip()}{cut}")


def saved(kind: str, titles: Sequence[str]) -> Line:
    """A file that was made; an animation is of one explanation."""
    only = f" It shows the first of them, “{titles[0]}”." if kind == "gif" and len(titles) > 1 else ""
    return news(f"Saved.{only}")


def checked(evidence: Evidence, titles: Sequence[str]) -> Line:
    """The verdict in plain words, then in numbers."""
    return news(f"{_first_of(titles)}{_plain(evidence)} {evidence.sentence}")


def _plain(evidence: Evidence) -> str:
    if evidence.verdict == "blank":
        return "There is nothing to check."
    if evidence.verdict == "above chance":
        return "The answer suffers most where the map is hottest: the map holds."
    if evidence.falls[DRAWN_AT] <= LEAST:
        return "Hiding the top of the map costs the answer nothing: no evidence for the map."
    if evidence.as_much == 0:
        return "Hiding the centre costs the answer as much: no evidence for the map."
    some = f"{evidence.as_much} of {len(evidence.random)} draws"
    return f"Hiding other places costs as much in {some}: no evidence for the map."


def hidden(found: Mapping[str, Any], titles: Sequence[str], hottest: bool) -> Line:
    """Which token changed most, and where the hottest part of a map lay."""
    where = f"The hottest tenth of the whole answer's map{_in(found['painted'])}. " if hottest else ""
    return news(f"{_first_of(titles)}{where}{_most_changed(found['tokens'])}")


def _most_changed(rows: Sequence[Mapping[str, Any]]) -> str:
    changes = [row["after"] - row["before"] for row in rows]
    at = max(range(len(rows)), key=lambda t: abs(changes[t]))
    if abs(changes[at]) < STEADY:
        return "Nothing changed: each token is as likely as before."
    row, verb = rows[at], "Fell" if changes[at] < 0 else "Rose"
    name = row["text"].strip() or "␣"
    return f"{verb} most: “{name}” (token {at + 1}), from {row['before']:.2f} to {row['after']:.2f}"


def _in(painted: Sequence[bool]) -> str:
    """Of several pictures, those of which a part is hidden."""
    numbers = [str(n) for n, each in enumerate(painted, 1) if each]
    return f" lies in picture{'s' * (len(numbers) > 1)} {', '.join(numbers)}" if len(painted) > 1 else " is painted"


def _first_of(titles: Sequence[str]) -> str:
    """Of explanations side by side the tools take the first."""
    return f"Of “{titles[0]}”: " if len(titles) > 1 else ""
