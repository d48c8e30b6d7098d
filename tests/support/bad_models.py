"""Models for rows of bad input, in memory and in folders."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bad_input
from bad_input import ANSWER, MODEL, PICTURE, PROCESSOR, PROMPT, Case

from dexar_fast import Explainer, Explanation


def explained(model: Any, processor: Any = PROCESSOR, prompt: str = PROMPT, **knobs: Any) -> Explanation:
    return Explainer(model, processor, **knobs).explain(PICTURE, prompt, ANSWER)


def fresh(change: Callable[[Any], Any] = lambda model: None) -> Any:
    """The small model, of its own, changed."""
    model = copy.deepcopy(MODEL)
    return change(model) or model


def from_folder(folder: Path, model: Any = MODEL, processor: Any = PROCESSOR, prompt: str = PROMPT) -> list[Case]:
    """A model in memory and, through the program, in a folder."""
    PICTURE.save(folder / "a.png")
    bad_input.save_model(folder / "model", model, processor)
    arguments = [str(folder / "a.png"), prompt, "--response", ANSWER, "--model", str(folder / "model")]
    return [Case(partial(explained, model, processor, prompt), None, arguments)]


def in_memory(make: Callable[[], Any], like: Callable[[], Any] | None = None) -> Callable[[Path], list[Case]]:
    """Only what Python can hold; `like` makes the model that gives the same result."""
    expected = None if like is None else (lambda: explained(like()))
    return lambda folder: [Case(lambda: explained(make()), expected)]
