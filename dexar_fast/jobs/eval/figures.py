"""From the records of items to figures: means with intervals, and paired differences between methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.jobs.eval import chance_methods
from dexar_fast.jobs.eval.measures.base import Metric
from dexar_fast.jobs.eval.plan import Evaluation
from dexar_fast.metrics.intervals import difference, estimate

Records = Mapping[str, Any]
Parts = dict[str, NDArray[np.float64]]
"""[P] by item."""
Shown = Mapping[str, int]
"""By item what stands for its picture."""


def figures(asked: Evaluation, records: Records) -> dict[str, Any]:
    """Plain JSON: what was asked, and for each model its figures, differences, and what was skipped or failed."""
    return {"asked": asked.asked(), "models": [_of_model(asked, records, model) for model in asked.models]}


def _of_model(asked: Evaluation, records: Records, model: str) -> dict[str, Any]:
    own = {key: records[key] for each, _, key in asked.due() if each == model and key in records}
    found = {key: record for key, record in own.items() if "error" not in record}
    rows, pairs = [], []
    shown = {key: asked.pictures[index] for each, index, key in asked.due() if each == model}
    for metric in asked.measured:
        parts = {name: _parts(found, name, metric) for name in asked.every_method}
        rows += [_figure(metric, name, parts[name], shown, asked.seed) for name in parts if parts[name]]
        pairs += [_pair(metric, one, other, parts, shown, asked.seed) for one, other in _pairs(asked.methods)]
    return {
        "model": model,
        "items": len(own),
        "errors": {key: record["error"] for key, record in own.items() if "error" in record},
        "figures": rows,
        "differences": [pair for pair in pairs if pair],
        "skipped": _reasons(found, asked, "skipped"),
        "failed": _reasons(found, asked, "failed"),
    }


def _parts(found: Records, name: str, metric: Metric) -> Parts:
    scored = {key: record["methods"][name].get("parts", {}) for key, record in found.items()}
    return {key: np.array(parts[metric.name]) for key, parts in scored.items() if metric.name in parts}


def _figure(metric: Metric, name: str, parts: Parts, shown: Shown, seed: int) -> dict[str, Any]:
    groups = [shown[key] for key in parts]
    found = estimate(list(parts.values()), metric.combine, groups=groups, seed=seed)
    about = {"metric": metric.name, "better": metric.better, "fill": metric.fill, "about": metric.about}
    counts = {"n": len(parts), "pictures": len({*groups})}
    return about | {"method": name, "null": name in chance_methods.NAMES} | counts | _plain(found._asdict())


def _pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """The first method with each other one, and every method with every chance map."""
    first, *others = methods
    return [(first, other) for other in others] + [(name, null) for name in methods for null in chance_methods.NAMES]


def _pair(
    metric: Metric, one: str, other: str, parts: Mapping[str, Parts], shown: Shown, seed: int
) -> dict[str, Any] | None:
    both = [key for key in parts[one] if key in parts[other]]
    if not both:
        return None
    first, second = ([parts[name][key] for key in both] for name in (one, other))
    groups = [shown[key] for key in both]
    found = difference(first, second, metric.combine, groups=groups, seed=seed)
    about = {"metric": metric.name, "method": one, "other": other, "n": len(both), "pictures": len({*groups})}
    return about | _plain(found._asdict())


def _reasons(found: Records, asked: Evaluation, kind: str) -> list[dict[str, Any]]:
    """Why something has no figure, of which metrics and methods, and how many items at most lack it.

    A metric without a name stands for all of them: the method failed.
    """
    counted: dict[str, Counter[tuple[str, str]]] = {}
    for record, name in product(found.values(), asked.every_method):
        for metric, reason in record["methods"][name].get(kind, {}).items():
            counted.setdefault(reason, Counter())[metric, name] += 1
    return [_reason(reason, count) for reason, count in counted.items()]


def _reason(reason: str, counted: Counter[tuple[str, str]]) -> dict[str, Any]:
    metrics, methods = (list(dict.fromkeys(each)) for each in zip(*counted, strict=True))
    return {"reason": reason, "metrics": metrics, "methods": methods, "items": max(counted.values())}


def _plain(found: dict[str, float]) -> dict[str, float | str]:
    """Numbers with six digits; "inf" and "-inf" for what JSON lacks."""
    return {name: float(f"{value:.6g}") if np.isfinite(value) else str(value) for name, value in found.items()}
