"""Which words draw on the picture, and TAM's scores of nouns and function words."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from dexar_fast.jobs.eval.case import Case
from dexar_fast.jobs.eval.measures.base import Metric, SkippedError
from dexar_fast.jobs.eval.measures.maps import counted_union, named
from dexar_fast.metrics import activation
from dexar_fast.metrics.maps import upsampled
from dexar_fast.vision.grid import Grid


def ratio_parts(case: Case, fill: None) -> list[float]:
    """Sums and numbers of visual and of filler tokens: the ratio is of all items together."""
    visual = case.visual
    if not visual.any() or visual.all():
        raise SkippedError("the ratio takes words that are marked and words that are not")
    e = case.explanation
    given = (e.token_weights * e.token_maps.sum(1)).double().numpy()
    return [given[visual].sum(), visual.sum(), given[~visual].sum(), (~visual).sum()]


def ratio(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """`metrics.tokens.token_filter_ratio` of sums: mean of the visual tokens over mean of the filler; 1 of zeros."""
    visual, filler = means[..., 0] * means[..., 3], means[..., 2] * means[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(filler > 0, visual / filler, np.where(visual > 0, np.inf, 1.0))


def object_parts(case: Case, fill: None) -> list[float]:
    return [case.once("objects", partial(_objects, case))]


def function_parts(case: Case, fill: None) -> list[float]:
    return [case.once("functions", partial(_functions, case))]


def _objects(case: Case) -> float:
    """The mean over objects, each by the best of all words that name it (`activation.object_iou`)."""
    maps = [each if each.any() else np.ones_like(each) for each in _on_one_scale(case)]
    named_by: dict[tuple[int, ...], list[int]] = {}
    for phrase in named(case):
        named_by.setdefault(tuple(sorted({*phrase.regions})), []).extend(case.tokens_of(phrase))
    found = [
        activation.object_iou([maps[token] for token in tokens], counted_union(case, regions)).iou
        for regions, tokens in named_by.items()
    ]
    return float(np.mean(found))


def _functions(case: Case) -> float:
    maps, visual = _on_one_scale(case), case.visual
    if visual.all() or not visual.any():
        raise SkippedError("function words take words that are marked and words that are not")
    return activation.function_iou([*maps[~visual]], [*maps[visual]])


def f1_parts(case: Case, fill: None) -> list[float]:
    return [case.once("objects", partial(_objects, case)), case.once("functions", partial(_functions, case))]


def f1(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """`metrics.activation.f1_iou` of means."""
    objects, functions = means[..., 0], means[..., 1]
    total = objects + functions
    return 2 * objects * functions / np.where(total > 0, total, 1)


def _on_one_scale(case: Case) -> NDArray[np.float64]:
    """[T, P]: the maps of all tokens in [0, 1] together, at the pixels that are not void."""
    return case.once("one scale", lambda: _drawn(case))


def _drawn(case: Case) -> NDArray[np.float64]:
    grids = case.explanation.grids
    if len(grids) != 1 or not isinstance(grids[0], Grid):
        raise SkippedError("maps of all tokens on one scale take a picture of one grid")
    raw = case.explanation.token_maps.double().numpy()[:, grids[0].cells]
    scaled = (raw - raw.min()) / np.ptp(raw) if np.ptp(raw) else np.ones_like(raw)
    if not case.counted.any():
        raise SkippedError("all of the picture is void")
    return np.stack([upsampled(each, *case.counted.shape).clip(0, 1)[case.counted] for each in scaled])


METRICS = [
    Metric("token-ratio", "higher", "Mean attribution of marked words over that of the others", ratio_parts, ratio),
    Metric("obj-iou", "higher", "TAM's Obj-IoU of words that name regions", object_parts),
    Metric("func-iou", "higher", "TAM's Func-IoU of the other words", function_parts),
    Metric("f1-iou", "higher", "TAM's F1-IoU of both means", f1_parts, f1),
]
