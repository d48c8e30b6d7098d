"""The best and the worst cases of an evaluation, as pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from dexar_fast.errors import DexarError
from dexar_fast.explainer import Explainer
from dexar_fast.jobs.eval.items import Asking
from dexar_fast.jobs.eval.plan import Evaluation

EACH = 3  # best and worst cases
WIDTH = 320  # pixels, at most


@dataclass(frozen=True)
class Shown:
    """A case: its place, by which metric, what was asked and answered, its score, and the answer's map as PNG."""

    place: str
    metric: str
    item: str
    question: str
    answer: str
    score: float
    picture: bytes


def ranked(asked: Evaluation, records: Mapping[str, Any], model: str) -> tuple[str, list[tuple[str, int, float]]]:
    """The first metric that the first method has, and (place, index, score) of the best and the worst items by it."""
    method = asked.methods[0]
    for metric in asked.measured:
        scored = {
            index: float(metric.combine(np.array(records[key]["methods"][method]["parts"][metric.name])))
            for each, index, key in asked.due()
            if each == model and metric.name in records[key].get("methods", {}).get(method, {}).get("parts", {})
        }
        if scored:
            sign = -1 if metric.better == "higher" else 1
            order = sorted(scored, key=lambda index: (sign * scored[index], index))
            return metric.name, _ends([(index, scored[index]) for index in order])
    return "", []


def _ends(order: list[tuple[int, float]]) -> list[tuple[str, int, float]]:
    count = min(EACH, len(order) // 2) or len(order)
    best = [(f"best-{place}", *each) for place, each in enumerate(order[:count], 1)]
    worst = [(f"worst-{place}", *each) for place, each in enumerate(order[::-1][:count], 1)]
    return best + worst if len(order) > 1 else best


def shown(asked: Evaluation, records: Mapping[str, Any], model: str, load: Callable[[str], Explainer]) -> list[Shown]:
    """Those whose map has a place in the picture; the model is loaded if there is one to show."""
    metric, cases = ranked(asked, records, model)
    found = []
    for place, index, score in cases:
        try:
            found.append(_drawn(asked, load(model), place, metric, index, score))
        except DexarError:  # geometry that is not known
            continue
    return found


def _drawn(asked: Evaluation, explainer: Explainer, place: str, metric: str, index: int, score: float) -> Shown:
    item = asked.data[index]
    asking = Asking(explainer, item, asked.prompt, asked.seed)
    asking.answered()  # as when it was measured: what a model samples may differ with the method
    _, explanation = asking.explained(asked.methods[0])
    question = item.question or asked.prompt
    return Shown(place, metric, item.id, question, explanation.text.strip(), score, _png(explanation.overlay()))


def _png(picture: Image.Image) -> bytes:
    picture.thumbnail((WIDTH, WIDTH))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
