"""One item: explained by every method, measured by every metric. What fails is a sentence in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from PIL import Image

from dexar_fast.data.item import Item
from dexar_fast.errors import DexarError
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.generation.arguments import at_most
from dexar_fast.generation.runner import Runner
from dexar_fast.jobs import stored
from dexar_fast.jobs.eval import chance_methods
from dexar_fast.jobs.eval.case import Case
from dexar_fast.jobs.eval.measures.base import Metric, SkippedError
from dexar_fast.jobs.learnt import as_if_known
from dexar_fast.methods import explaining
from dexar_fast.prompt.request import Request
from dexar_fast.vision.images import load_images

DIGITS = 6  # that are kept of a number: more would be the order in which threads add
Others = Callable[[], Iterator[Image.Image]]


class Asking:
    """The question of an item, put to one model; its answer is that of the item, or what the model writes.

    Args:
        seed: of the evaluation; torch's generators are seeded for each item, since answers may be sampled.
    Raises:
        InputError, ImageError: as `Item.image` and `Explainer.explain`.
    """

    def __init__(self, explainer: Explainer, item: Item, prompt: str, seed: int = 0) -> None:
        self._explainer, self._images = explainer, load_images(item.image)
        self._seed = chance_methods.seed_of(seed, item.id)
        before, ids = stored.chosen(item)
        self._prompt = stored.prompt(explainer, before) if before else item.question or prompt
        self._request = stored.request(explainer, self._images, self._prompt, item.answer, ids, before)
        self.found: dict[Any, Any] = {}  # whatever the method

    def answered(self) -> str:
        """The answer that all methods explain, the same whichever of them comes first. Raises DexarError."""
        return self.explained("uniform")[1].text

    def explained(self, method: str) -> tuple[Explainer, Explanation]:
        """By a method, and the explainer of that; each method explains the same tokens. Raises DexarError."""
        own = self._explainer.with_method(method)
        reads_words = own.settings.text_set == "content"
        found = self._by(own, self._read(own, self._images) if reads_words else self._request)
        self._request = replace(self._request, targets=found.token_ids)
        return own, found

    def again(self, own: Explainer, picture: Image.Image) -> Any:
        """The map [N] of another picture with the same question and answer."""
        return self._by(own, self._read(own, [picture])).sequence_map

    def _by(self, own: Explainer, asked: Request) -> Explanation:
        device = own.model.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            found = as_if_known(own, lambda: self._drawn(own, asked))
        self._explainer.decoder = own.decoder
        return found

    def _drawn(self, own: Explainer, asked: Request) -> Explanation:
        torch.manual_seed(self._seed)
        return explaining.explain(Runner(own, asked, at_most(None, {}), None), own.method)

    def _read(self, own: Explainer, pictures: list[Image.Image]) -> Request:
        return replace(own._read(pictures, self._prompt, None), targets=self._request.targets)


@dataclass(frozen=True)
class Measuring:
    """What is measured of every item, by one model."""

    explainer: Explainer
    methods: Sequence[str]
    metrics: Sequence[Metric]
    prompt: str
    seed: int

    def record(self, item: Item, others: Others) -> dict[str, Any]:
        """Plain JSON: the answer, and for each method its parts by metric, what was skipped, and what failed."""
        try:
            asking = Asking(self.explainer, item, self.prompt, self.seed)
            answer = asking.answered()
            item.masks()
            item.ignored()
        except DexarError as error:
            return {"error": str(error)}
        names = (*self.methods, *chance_methods.NAMES)
        return {"answer": answer, "methods": {name: self._of(asking, item, name, others) for name in names}}

    def _of(self, asking: Asking, item: Item, name: str, others: Others) -> dict[str, Any]:
        try:
            return measured(case_of(asking, item, name, self.seed, others), self.metrics)
        except DexarError as error:
            return {"failed": {"": str(error)}}


def case_of(asking: Asking, item: Item, name: str, seed: int, others: Others) -> Case:
    """An item explained by a method or as a chance map. Raises DexarError."""
    own_seed = chance_methods.seed_of(seed, item.id)
    null = name if name in chance_methods.NAMES else None
    own, explanation = asking.explained(name if null is None else chance_methods.method(name, own_seed))
    return Case(own, item, explanation, null, own_seed, partial(asking.again, own), others, asking.found)


def measured(case: Case, metrics: Sequence[Metric]) -> dict[str, Any]:
    """What each metric gives of a case, or why it gives nothing."""
    found: dict[str, dict[str, Any]] = {"parts": {}, "skipped": {}, "failed": {}}
    for metric in metrics:
        try:
            found["parts"][metric.name] = [_rounded(value) for value in metric.parts(case, metric.fill)]
        except SkippedError as reason:
            found["skipped"][metric.name] = str(reason)
        except DexarError as error:
            found["failed"][metric.name] = str(error)
    return {kind: values for kind, values in found.items() if values}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
