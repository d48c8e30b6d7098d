"""The page of a job: what was asked, what failed, and the answers, each token in the colour of its weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment

from dexar_fast.explanation import Explanation
from dexar_fast.files import write_atomically
from dexar_fast.jobs.finished.folder import EXPLANATIONS, PAGE, PICTURES, Folder
from dexar_fast.report.drawing import colours

MOST = 500  # answers that a page shows, and failures


@dataclass(frozen=True)
class Token:
    """A token of an answer, its ground and its ink; no colours without weight."""

    text: str
    ground: str
    ink: str


@dataclass(frozen=True)
class Answer:
    """An item with its answer; picture and file are links from the page on."""

    item: str
    prompt: str
    tokens: list[Token]
    picture: str | None
    file: str


def write(folder: Folder, asked: Mapping[str, Any], records: Mapping[str, Any]) -> Path:
    """Writes the page of what is finished. Raises FileError: it cannot be written, or an explanation is missing."""
    failed = {name: record["error"] for name, record in records.items() if record["error"] is not None}
    good = {name: record for name, record in records.items() if record["error"] is None}
    answers = [_answer(folder, name, record) for name, record in islice(good.items(), MOST)]
    shown = {name: value for name, value in asked.items() if value not in (None, {}, [], False)}
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("dexar_fast.jobs.finished") / "page.html").read_text("utf-8"))
    told = {"failures": len(failed), "failed": dict(islice(failed.items(), MOST)), "good": len(good), "most": MOST}
    text = template.render(asked=shown, answers=answers, finished=len(records), **told)
    write_atomically(folder.path / PAGE, text.encode("utf-8", "backslashreplace"))
    return folder.path / PAGE


def _answer(folder: Folder, name: str, record: Mapping[str, Any]) -> Answer:
    path = folder.explanation(record["index"])
    picture = f"{PICTURES}/{path.stem}.png"
    drawn = picture if (folder.path / picture).exists() else None
    tokens = list(_tokens(Explanation.load(path)))
    return Answer(name, record["prompt"] or "", tokens, drawn, f"{EXPLANATIONS}/{path.name}")


def _tokens(found: Explanation) -> Iterable[Token]:
    weights = found.token_weights.tolist() if found.weighted else [0.0] * len(found)
    heaviest = max(weights)
    for text, weight in zip(found.tokens, weights, strict=True):
        if weight > 0:
            colour = colours.of(weight / heaviest)
            yield Token(text, colours.css(colour), colours.ink_on(colour))
        else:
            yield Token(text, "", "")
