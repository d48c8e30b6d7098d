"""Runs an evaluation into a folder: an item at a time, each finished for good, so that a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from PIL import Image

from dexar_fast.errors import DexarError, FileError, cause
from dexar_fast.explainer import Explainer
from dexar_fast.jobs.eval.items import Measuring
from dexar_fast.jobs.eval.plan import EMBEDDED, Evaluation
from dexar_fast.jobs.ledger import Ledger
from dexar_fast.vision.images import load_images

LEDGER = "items.jsonl"
Tell = Callable[[int, int], None]
"""Gets how many items are finished, and of how many."""


def run(asked: Evaluation, out: Path, tell: Tell = lambda done, of: None) -> dict[str, Any]:
    """All records by key, in the order of `Evaluation.due`; those in the folder's ledger are not made again.

    Raises:
        InputError: the folder was begun with other settings. FileError: it cannot be written, or another process
            writes it. ModelError: a model that cannot be loaded.
    """
    _made(out)
    with Ledger(out / LEDGER, asked.asked()) as ledger:
        due = [each for each in asked.due() if each[2] not in ledger]
        for model, own in groupby(due, itemgetter(0)):
            measuring = _measuring(asked, model)
            for _, index, key in own:
                ledger.add({key: measuring.record(asked.data[index], partial(_others, asked, index))})
                tell(len(ledger), len(asked.models) * len(asked.chosen))
        return {key: ledger[key] for _, _, key in asked.due()}


def _made(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make {out}: {cause(error)}") from error


def _measuring(asked: Evaluation, model: str) -> Measuring:
    explainer = Explainer.from_pretrained(None if model == EMBEDDED else model, **dict(asked.placement))
    found = Measuring(explainer, asked.methods, asked.measured, asked.prompt, asked.seed)
    _warm(asked, replace(found, metrics=()))
    return found


def _warm(asked: Evaluation, measuring: Measuring) -> None:
    """Explains the first item that can be: what a model's first calls find out about it changes last digits."""
    for index in asked.chosen:
        if "error" not in measuring.record(asked.data[index], lambda: iter(())):
            break


def _others(asked: Evaluation, index: int) -> Iterator[Image.Image]:
    """The pictures of the items behind this one, then of those before it, as far as they can be opened."""
    place = asked.chosen.index(index)
    for other in asked.chosen[place + 1 :] + asked.chosen[:place]:
        with suppress(DexarError):
            yield from load_images(asked.data[other].image)
