"""What an evaluation is asked for, checked before a model is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dexar_fast import __version__
from dexar_fast.data.dataset import DataSet
from dexar_fast.errors import InputError
from dexar_fast.jobs.eval import chance_methods
from dexar_fast.jobs.eval.measures import registry as measures
from dexar_fast.jobs.eval.measures.base import Metric
from dexar_fast.jobs.finished.ledger import CONTENT
from dexar_fast.jobs.lots import picture_of
from dexar_fast.loading import fingerprint
from dexar_fast.methods import knobs
from dexar_fast.methods import registry as methods

EMBEDDED = "embedded"
PROMPT = "Describe the image."
WHERE = ("device", "device_map")  # options of loading: an evaluation may go on elsewhere
USUAL_METHODS = ("dex-ar", "attention")
USUAL_METRICS = ("soft-iou", "iou", "epg", "snr", "pointing", "blank", "word-iou", "word-epg", "word-blank")


@dataclass(frozen=True)
class Evaluation:
    """Methods by metrics over the items of a data set, for each model.

    Attributes:
        data: the items. spelled: how the data set was named.
        methods: names, with knobs if need be; the first is the one that the others are compared with. Chance maps are
            always among what is measured.
        models: names on the Hub or folders; "embedded" is the small model of this package.
        n: how many items, chosen by the seed; None takes all.
        prompt: what is asked of items that ask nothing.
        placement: options of `Explainer.from_pretrained`.
    Raises:
        InputError: an unknown or repeated method or metric, or numbers that are none.
    """

    data: DataSet
    spelled: str
    methods: tuple[str, ...] = USUAL_METHODS
    metrics: tuple[str, ...] = USUAL_METRICS
    models: tuple[str, ...] = (EMBEDDED,)
    n: int | None = None
    seed: int = 0
    prompt: str = PROMPT
    placement: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        _once("method", self.methods)
        _once("model", self.models)
        knobs.seed(self.seed)
        for name in self.methods:
            _check_method(name)
        if not self.measured:
            raise InputError("no metric is named")
        if self.n is not None:
            knobs.whole("n", self.n, 1)
        if len(self.data) == 0:
            raise InputError(f"the data set {self.spelled} holds no item")

    @cached_property
    def measured(self) -> list[Metric]:
        return measures.each(self.metrics)

    @property
    def every_method(self) -> tuple[str, ...]:
        """The methods, and behind them the chance maps."""
        return (*self.methods, *chance_methods.NAMES)

    @cached_property
    def chosen(self) -> list[int]:
        """The indices of the items, ascending."""
        count = len(self.data)
        if self.n is None or self.n >= count:
            return list(range(count))
        return sorted(np.random.default_rng(self.seed).choice(count, self.n, replace=False).tolist())

    @cached_property
    def pictures(self) -> dict[int, int]:
        """By the indices of the items what stands for the picture of each: equal for items that share one."""
        return {index: hash(picture_of(self.data[index])) for index in self.chosen}

    @cached_property
    def content(self) -> str:
        """What the chosen items are made from (`DataSet.content`)."""
        return self.data.content(self.chosen)

    def due(self) -> Iterator[tuple[str, int, str]]:
        """(model, index, key of its record) of all that is to be done, in order."""
        for model in self.models:
            yield from ((model, index, f"{model} {self.data.ids[index]}") for index in self.chosen)

    def asked(self) -> dict[str, Any]:
        """Plain JSON: all that the records depend on."""
        return {
            "data": self.spelled,
            "ids": hashlib.sha256("\0".join(self.data.ids).encode("utf-8", "surrogatepass")).hexdigest()[:16],
            CONTENT: self.content,
            "methods": list(self.methods),
            "metrics": list(self.metrics),
            "models": list(self.models),
            "model_files": {model: found for model in self.models if (found := fingerprint.of_folder(model))},
            "n": self.n,
            "seed": self.seed,
            "prompt": self.prompt,
            "placement": {name: value for name, value in self.placement if name not in WHERE},
            "dexar_fast": __version__,
        }


def _check_method(name: str) -> None:
    methods.of(name)
    if name in chance_methods.NAMES:
        raise InputError(f"{name!r} is a chance map, and these are measured in any case: leave it out")


def _once(what: str, given: Sequence[str]) -> None:
    repeated = [one for index, one in enumerate(given) if one in given[:index]]
    if repeated or not given:
        raise InputError(f"{what} {repeated[0]!r} is named twice" if repeated else f"no {what} is named")
