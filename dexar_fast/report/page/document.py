"""An explanation as one HTML file that needs nothing beside it; several of them side by side.

The file loads nothing: style, script, numbers and pictures are in it, and its Content-Security-Policy lets nothing else
run. Whatever comes from a user or a model is escaped: text by jinja2, the script's data by its `tojson`.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from dexar_fast import __version__
from dexar_fast.errors import InputError
from dexar_fast.files import write_atomically
from dexar_fast.report import plain_words, scales, words
from dexar_fast.report.drawing import colours, overlay
from dexar_fast.report.page import data
from dexar_fast.report.page.earlier import Earlier, Part, earlier
from dexar_fast.report.page.pictures import Picture, pictures
from dexar_fast.results.schema import Result

_HERE = Path(__file__).parent
_SCRIPTS = ("layers.js", "underlines.js", "holding.js", "report.js")
_LEFT, _RIGHT, _ABOVE, _BELOW = 46, 10, 7, 34  # pixels around the cells of the heads, for their labels
_MATRIX_WIDTH, _MATRIX_HEIGHT = 420, 230
_OPAQUE = overlay.LINE_OPAQUE / overlay.MOST_OPAQUE
_LINES = {"levels": overlay.LEVELS, "across": overlay.LINES_ACROSS, "opaque": _OPAQUE}
_SMALLEST_CELL, _LARGEST_CELL = 4, 26


@dataclass(frozen=True)
class Chip:
    """A piece of the answer, the white space around it, and its colours; no colours without weight."""

    before: str
    text: str
    after: str
    label: str
    background: str
    ink: str
    joins: str  # CSS classes: how it joins the piece before it and the one after it


@dataclass(frozen=True)
class Matrix:
    """The size of the drawing of the heads, in pixels; zero without heads."""

    width: int
    height: int
    cell: int


@dataclass(frozen=True)
class View:
    """What the template shows of one explanation."""

    title: str
    facts: list[tuple[str, str]]
    sizes: str
    question: str
    prompt: str
    words: list[Part] | None
    whole: str
    direction: str
    chips: list[Chip]
    heaviest: str
    weighted: bool
    merged: str
    pictures: list[Picture]
    reason: str
    mapped: bool
    matrix: Matrix
    diagnostics: list[plain_words.Sentence]
    numbers: list[str]


def write(explanation: Result, path: str | os.PathLike[str], by: str) -> None:
    """See `Explanation.to_html`."""
    write_atomically(path, render([explanation], [_name(explanation)], by))


def compare_html(
    explanations: Sequence[Result],
    path: str | os.PathLike[str],
    *,
    titles: Sequence[str] | None = None,
    by: str = "token",
) -> None:
    """Write a page that shows explanations side by side, for instance two methods or two models on one image.

    One switch and one slider serve all of them; where the answers are cut alike, choosing a token in one chooses it in
    all.

    Args:
        explanations: two or more.
        path: of the HTML file; an existing one is replaced once the new one is complete.
        titles: one for each; None takes the names of the models.
        by: as in `Explanation.to_html`.

    Raises:
        InputError: fewer than two explanations or anything else, titles of another number, or an unknown `by`.
        FileError: the folder does not exist, or it cannot be written there.
    """
    explanations = _several("explanations", explanations)
    for explanation in explanations:
        if not isinstance(explanation, Result):
            raise InputError(f"compare_html takes Explanations, not a {type(explanation).__name__}")
    if len(explanations) < 2:
        raise InputError(f"compare_html needs two explanations or more, not {len(explanations)}: for one use to_html")
    names = [_name(explanation) for explanation in explanations] if titles is None else _several("titles", titles)
    if len(names) != len(explanations):
        raise InputError(f"there are {len(explanations)} explanations, but {len(names)} titles: give one for each")
    if titles is None and len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
    write_atomically(path, render(explanations, names, by))


def _several(name: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list, not a {type(values).__name__}")
    return list(values)


@dataclass(frozen=True)
class Beside:
    """What stands behind the style and the script of a page that is shown inside another one."""

    style: str = ""
    script: str = ""


ALONE = Beside()


def render(explanations: Sequence[Result], titles: Sequence[str], by: str, beside: Beside = ALONE) -> bytes:
    """The page, in UTF-8."""
    views, numbers, top = [], [], scales.common_top(explanations)
    for explanation, title in zip(explanations, titles, strict=True):
        pieces, shown = words.pieces(explanation, by), pictures(explanation)
        before = earlier(explanation, pieces, by)
        views.append(_view(explanation, str(title), pieces, before, shown, by, top))
        numbers.append(data.encode(explanation, pieces, shown, before))
    script = "".join(map(_source, _SCRIPTS)) + beside.script
    text = (
        _environment()
        .get_template("template.html")
        .render(
            views=views,
            question=_common([view.question for view in views]),
            prompt=_common([view.prompt for view in views]),
            data={
                "reports": numbers,
                "palette": data.packed(colours.palette()),
                "top": top,
                "power": overlay.OPACITY_POWER,
                "lines": _LINES,
            },
            opacity=round(overlay.MOST_OPAQUE * 100),
            gradient=Markup(colours.gradient()),
            margins={"left": _LEFT, "top": _ABOVE},
            style=Markup(_source("report.css") + beside.style),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            version=__version__,
        )
    )
    return text.encode("utf-8", "replace")


def _common(texts: list[str]) -> str:
    """The text that all share; empty where they differ."""
    return texts[0] if len({*texts}) == 1 else ""


def _view(
    explanation: Result, title: str, pieces: words.Pieces, before: Earlier | None, shown: list[Picture], by: str,
    top: float | None,
) -> View:  # fmt: skip
    return View(
        title=title,
        facts=plain_words.facts(explanation.metadata),
        sizes=_sizes(explanation, title),
        question=words.question(explanation),
        prompt=str(explanation.metadata.get("prompt") or ""),
        words=before.prompt if before else None,
        whole="Whole answer" + (_rests(before.strongest[-1]) if before else ""),
        direction=words.direction("".join(pieces.texts)),
        chips=chips(pieces.texts, pieces.weights, explanation.weighted, before, top),
        weighted=explanation.weighted,
        heaviest=f"{top or pieces.weights.max(initial=0):.3g}",
        merged=plain_words.merging(by, any(len(span) > 1 for span in pieces.spans)),
        pictures=shown,
        reason=plain_words.missing(explanation),
        mapped=bool(explanation.grids),
        matrix=_matrix(*explanation.head_weights.shape[1:]),
        diagnostics=plain_words.diagnose(explanation),
        numbers=plain_words.numbers(explanation),
    )


def _sizes(explanation: Result, title: str) -> str:
    layers, heads = explanation.head_weights.shape[1:]
    counted = plain_words.counted
    parts = [counted(len(explanation), "tokens"), counted(len(explanation.visual_positions), explanation.values)]
    if layers * heads:
        parts.append(f"{counted(layers, 'layers')} \N{MULTIPLICATION SIGN} {counted(heads, 'heads')}")
    return " · ".join([name for name in _method(explanation) if name != title] + parts)


def _method(explanation: Result) -> list[str]:
    """The name of the method, where the settings tell."""
    settings = explanation.metadata.get("settings")
    name = settings.get("method") if isinstance(settings, dict) else None
    return [name] if isinstance(name, str) else []


def chips(
    texts: Sequence[str], weights: NDArray[np.float64], weighted: bool, before: Earlier | None = None,
    top: float | None = None,
) -> list[Chip]:  # fmt: skip
    """The chips of the pieces of an answer, from the text and the weight of each; `top`: the weight of full heat."""
    heaviest = top or weights.max(initial=0)
    parts = [words.shown(text) for text in texts]
    joints = [_joint(left, right) for left, right in pairwise([("", "", " "), *parts, (" ", "", "")])]
    rests = [_rests(row) for row in before.strongest] if before else [""] * len(parts)
    found = []
    for n, ((space, text, after), weight) in enumerate(zip(parts, weights, strict=True)):
        colour = colours.of(weight / heaviest) if weighted and weight > 0 else None
        found.append(
            Chip(
                space if n else space.lstrip(" "),
                text,
                after,
                (f"{text}, weight {weight:.3g}" if weighted else text) + rests[n],
                "" if colour is None else colours.css(colour),
                "" if colour is None else colours.ink_on(colour),
                f"{joints[n]}-before {joints[n + 1]}-after",
            )
        )
    return found


@lru_cache(maxsize=4096)  # of an answer that grows most are as they were
def chip_html(chip: Chip, first: bool) -> str:
    """A chip as the page draws it."""
    return str(_environment().get_template("chip.html").module.drawn(chip, first))  # type: ignore[attr-defined]


def _rests(strongest: list[tuple[str, float]]) -> str:
    """What a screen reader says after the weight."""
    return f", rests on {', '.join(word for word, _ in strongest)}" if strongest else ""


def _joint(left: tuple[str, str, str], right: tuple[str, str, str]) -> str:
    """How two pieces join, each given with the white space around it: by space, as letters, or near."""
    if left[2] or right[0]:
        return "space"
    return "letters" if words.touch(left[1], right[1]) else "near"


def _matrix(layers: int, heads: int) -> Matrix:
    if not layers * heads:
        return Matrix(0, 0, 0)
    cell = max(_SMALLEST_CELL, min(_LARGEST_CELL, _MATRIX_WIDTH // heads, _MATRIX_HEIGHT // layers))
    return Matrix(_LEFT + heads * cell + _RIGHT, _ABOVE + layers * cell + _BELOW, cell)


def _name(explanation: Result) -> str:
    """The name of the model: the last part of its path or id."""
    name: Any = explanation.metadata.get("model")
    return str(name).rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] if name else "model"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Infinity is no JSON: a browser would show a page without maps.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


@cache
def _source(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
