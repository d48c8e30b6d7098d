"""How little must be hidden for a wrong answer to become right: in EAGLE's order, and in that of chance maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from dexar_fast.data.item import Item
from dexar_fast.jobs import stored
from dexar_fast.jobs.eval import chance_methods
from dexar_fast.jobs.eval.case import Case
from dexar_fast.jobs.eval.measures.base import Metric, SkippedError
from dexar_fast.methods.eagle.hallucination import Diagnosis, diagnose, minimal_region
from dexar_fast.methods.eagle.method import Eagle
from dexar_fast.metrics.hiding.correction import csr
from dexar_fast.metrics.hiding.ordering import order
from dexar_fast.vision.regions import Regions

KEY = "diagnosis"


def region_parts(read: Callable[[float], float], case: Case, fill: str) -> list[float]:
    """The smallest removal that puts a wrong answer right, by a method or a chance map."""
    return [read(case.once(KEY, partial(_by_method if case.null is None else _by_chance, case)))]


def _by_method(case: Case) -> float:
    method, item = case.explainer.method, case.item
    if not isinstance(method, Eagle):
        raise SkippedError("corrections are made in the order of 'eagle' alone, and of chance maps beside it")
    if not item.references or item.question is None:
        raise SkippedError("a correction takes a question and its right answer")
    found = diagnose(case.explainer, item.image, _asked(case), _right(item), method)
    case.once_for_all(KEY, lambda: (found, method))
    return found.minimal_region


def _by_chance(case: Case) -> float:
    """Over the regions of the first EAGLE that is measured."""
    if KEY not in case.shared:
        raise SkippedError("chance maps order the regions of 'eagle', which has found none")
    found, method = case.shared[KEY]
    return minimal_region(case.explainer, found, _order(case, found), method)


def _order(case: Case, found: Diagnosis) -> list[int]:
    """EAGLE's regions by the mean of a chance map over each; none where the answer is right as it is."""
    if found.explanation is None:
        return []
    seen = np.array(found.explanation.diagnostics["eagle"]["order"])
    sums, counts = np.zeros((2, seen.max() + 1))
    for cells in (each for each in found.explanation.grids if isinstance(each, Regions)):
        height, width = cells.labels.shape
        heat = chance_methods.drawn(str(case.null), height, width, (case.seed, cells.image))
        numbers, inside = cells.labels + cells.start, cells.labels + cells.start <= seen.max()
        sums += np.bincount(numbers[inside], heat[inside], len(sums))
        counts += np.bincount(numbers[inside], minlength=len(counts))
    places = order(sums[seen] / counts[seen], case.seed)
    return [int(region) for region in seen[places]]


def _asked(case: Case) -> str:
    """The question, in the prompt of the data set if that stores one."""
    ids = case.item.prompt_ids
    return stored.prompt(case.explainer, ids) if ids else str(case.item.question)


def _right(item: Item) -> str:
    """The best reference, as the beginning of a sentence."""
    return item.references[0][:1].upper() + item.references[0][1:]


def _within(region: float) -> float:
    return csr([region])


METRICS = [
    Metric(
        "amcr",
        "lower",
        "Share of the picture to hide until the answer is right",
        partial(region_parts, float),
        fill="black",
    ),
    Metric("csr", "higher", "Whether a tenth is enough", partial(region_parts, _within), fill="black"),
]
