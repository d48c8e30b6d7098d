"""Maps beside masks: of the whole answer and all regions, and of each phrase and the regions that it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dexar_fast.jobs.eval.case import Case
from dexar_fast.jobs.eval.measures.base import Better, Metric, SkippedError
from dexar_fast.metrics import segmentation, thresholds
from dexar_fast.metrics.maps import Map, Mask

Score = Callable[[Any, Any], float]
_SCORES: dict[str, tuple[Score, Better, str]] = {
    "soft-iou": (segmentation.soft_iou, "higher", "overlap of the map with the object, soft"),
    "iou": (thresholds.best_iou, "higher", "overlap at the best of 20 thresholds"),
    "epg": (segmentation.energy_inside, "higher", "share of the map that lies in the object"),
    "snr": (segmentation.snr, "higher", "mean inside over mean outside, dB"),
    "pointing": (segmentation.points_at, "higher", "whether the maximum lies in the object"),
    "pointing-eagle": (segmentation.points_at_as_eagle, "higher", "the same, ties a hit"),
}


def answer_parts(score: Score, case: Case, fill: None) -> list[float]:
    """The map of the answer beside the union of all regions."""
    return [_scored(score, case, case.answer_map, counted_union(case, range(len(case.item.regions))))]


def word_parts(score: Score, case: Case, fill: None) -> list[float]:
    """The mean over the phrases that name regions."""
    found = [_scored(score, case, case.word_map(one), counted_union(case, one.regions)) for one in named(case)]
    return [float(np.mean(found))]


def blank_parts(case: Case, fill: None) -> list[float]:
    return [float(case.is_blank(None))]


def blank_words(case: Case, fill: None) -> list[float]:
    return [float(np.mean([case.is_blank(case.tokens_of(phrase)) for phrase in named(case)]))]


def named(case: Case) -> list[Any]:
    """The phrases that name regions. Raises SkippedError."""
    found = [phrase for phrase in case.item.phrases if phrase.regions]
    if not found:
        raise SkippedError("no words are marked that name a region")
    if not case.tokens_of(found[0]):
        raise SkippedError("the answer explained is not the one whose words are marked")
    return found


def union(case: Case, regions: Sequence[int]) -> Mask:
    """Where these regions lie. Raises SkippedError."""
    if not case.item.regions:
        raise SkippedError("no mask: no region is marked")
    found: Mask = np.logical_or.reduce(case.masks[list(regions)])
    return found


def counted_union(case: Case, regions: Sequence[int]) -> Mask:
    """bool [P], the same at the pixels that are not void. Raises SkippedError, also where it holds none of them."""
    inside: Mask = union(case, regions)[case.counted]
    if not inside.any():
        raise SkippedError("the mask holds no pixel that counts")
    return inside


def _scored(score: Score, case: Case, a: Map, inside: Mask) -> float:
    if score is segmentation.snr and inside.all():
        raise SkippedError("the mask covers the whole picture")
    values = a[case.counted]
    if not values.any():
        raise SkippedError("the map is 0 at all pixels that count")
    return float(score(values, inside))


def _both(name: str) -> list[Metric]:
    score, better, about = _SCORES[name]
    return [
        Metric(name, better, f"Map of the answer beside all regions: {about}", partial(answer_parts, score)),
        Metric(
            f"word-{name}",
            better,
            f"Maps of words beside the regions that they name: {about}",
            partial(word_parts, score),
        ),
    ]


METRICS = [
    *(metric for name in _SCORES for metric in _both(name)),
    Metric("blank", "lower", "Share of blank maps of answers, which score as uniform ones", blank_parts),
    Metric("word-blank", "lower", "Share of blank maps of words, which score as uniform ones", blank_words),
]
