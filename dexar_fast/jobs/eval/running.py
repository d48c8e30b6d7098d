"""Runs an evaluation into a folder: an item at a time, each finished for good, so that a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from dexar_fast.errors import DexarError, FileError, cause
from dexar_fast.explainer import Explainer
from dexar_fast.jobs.eval.items import Measuring
from dexar_fast.jobs.eval.plan import EMBEDDED, Evaluation
from dexar_fast.jobs.finished import ledger as ledgers
from dexar_fast.jobs.finished.ledger import Ledger
from dexar_fast.jobs.share import ALL, Share
from dexar_fast.vision.images import load_images

LEDGER = "items.jsonl"


class Models:
    """The models of an evaluation, one at a time: the last one stays loaded."""

    def __init__(self, asked: Evaluation) -> None:
        self._asked = asked
        self._loaded: tuple[str, Explainer] | None = None

    def load(self, model: str) -> Explainer:
        """Raises ModelError."""
        if self._loaded is None or self._loaded[0] != model:
            self._loaded = None  # frees the memory first
            name = None if model == EMBEDDED else model
            self._loaded = model, Explainer.from_pretrained(name, **dict(self._asked.placement))
        return self._loaded[1]


def run(
    asked: Evaluation, out: Path, load: Callable[[str], Explainer], retry: bool = False, share: Share = ALL
) -> Iterator[tuple[int, int]]:
    """Finishes items one by one; those in the folder's ledgers are not made again.

    Args:
        load: gives the explainer of a model, such as `Models.load`.
        retry: make items again of which anything failed.
        share: of this worker: every `world`-th picture, with all its items.
    Yields:
        How many of the share's items are finished, and how many it has: first of all, and then behind each.
    Raises:
        InputError: the folder was begun with other settings. FileError: it cannot be written, or another process
            writes it. ModelError: a model that cannot be loaded.
    """
    _made(out)
    _found(asked, out)  # before a ledger of other settings lies in the folder
    with Ledger(out / _name(share), asked.asked()) as ledger:
        found, every = _found(asked, out), list(_mine(asked, share))
        due = [each for each in every if each[2] not in found or (retry and _failed(found[each[2]]))]
        finished = len(every) - len(due)
        yield finished, len(every)
        for count, (model, index, key) in enumerate(due, finished + 1):
            measuring = Measuring(load(model), asked.methods, asked.measured, asked.prompt, asked.seed)
            record = measuring.record(asked.data[index], partial(_others, asked, index))
            ledger.add({key: record}, again=retry)
            yield count, len(every)


def finished(asked: Evaluation, out: Path) -> dict[str, Any]:
    """The folder's records by key, in the order of `Evaluation.due`: some, while a run goes on. Raises FileError."""
    records = _found(asked, out)
    return {key: records[key] for _, _, key in asked.due() if key in records}


def _name(share: Share) -> str:
    return LEDGER if share.world == 1 else f"items-{share.rank}-of-{share.world}.jsonl"


def _mine(asked: Evaluation, share: Share) -> Iterator[tuple[str, int, str]]:
    places = {picture: place for place, picture in enumerate(dict.fromkeys(asked.pictures.values()))}
    return (each for each in asked.due() if places[asked.pictures[each[1]]] % share.world == share.rank)


def _found(asked: Evaluation, out: Path) -> dict[str, Any]:
    """What all workers have finished, by key; where several have, one of which nothing failed. Raises as `run`."""
    records: dict[str, Any] = {}
    settings = json.loads(json.dumps(asked.asked()))
    for path in sorted(filter(ledgers.begun, out.glob("items*.jsonl"))):
        begun, found = ledgers.read(path)
        ledgers.compare(path, begun if found else settings, settings)
        records |= {key: record for key, record in found.items() if key not in records or not _failed(record)}
    return records


def _failed(record: Mapping[str, Any]) -> bool:
    """Whether an item is broken, or a method or a metric failed on it."""
    return "error" in record or any("failed" in each for each in record["methods"].values())


def _made(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make {out}: {cause(error)}") from error


def _others(asked: Evaluation, index: int) -> Iterator[Image.Image]:
    """The pictures of the items behind this one, then of those before it, as far as they can be opened."""
    place = asked.chosen.index(index)
    for other in asked.chosen[place + 1 :] + asked.chosen[:place]:
        with suppress(DexarError):
            yield from load_images(asked.data[other].image)
