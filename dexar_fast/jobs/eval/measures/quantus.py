"""Metrics of Quantus by name, over our maps: those of localisation and complexity, which need no classifier."""

from __future__ import annotations

import contextlib
import io
import warnings
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.data.libraries import library
from dexar_fast.errors import InputError, ModelError, reason
from dexar_fast.jobs.eval.case import Case
from dexar_fast.jobs.eval.measures.base import Better, Metric, SkippedError
from dexar_fast.jobs.eval.measures.maps import counted_union

PREFIX = "quantus:"
ROOMS = ("Localisation", "Complexity")
KNOBS = {"abs": False, "normalise": False, "disable_warnings": True}  # our maps are in [0, 1] already


def of(name: str) -> Metric:
    """A metric of Quantus. Raises InputError: none of that name; LibraryError: Quantus is not installed."""
    kinds = _kinds()
    if name not in kinds:
        close = get_close_matches(name, kinds, 1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"{PREFIX}{name} is none of Quantus' {', '.join(kinds)}{meant}")
    made = _quietly(lambda: kinds[name](**KNOBS))
    better: Better = "lower" if "lower" in str(made.score_direction.value).lower() else "higher"
    localises = made.evaluation_category.value == ROOMS[0]
    return Metric(PREFIX + name, better, f"{made.name}, as Quantus computes it", partial(parts, made, localises))


def parts(metric: Any, localises: bool, case: Case, fill: None) -> list[float]:
    """One score of one map: of the answer, beside the union of all regions where the metric takes a mask.

    Quantus gets the P pixels that are not void as one row, [1, 1, 1, P]: its metrics by name flatten what they get, and
    take no pixel to be left out.
    """
    a = case.answer_map[case.counted]
    if not a.size or not np.ptp(a):
        raise SkippedError("Quantus refuses a map that is the same everywhere")
    mask = _row(counted_union(case, range(len(case.item.regions)))) if localises else None
    given = {"model": None, "x_batch": np.zeros((1, 3, 1, a.size)), "y_batch": np.zeros(1, int), "channel_first": True}
    try:
        (score,) = _quietly(lambda: metric(**given, a_batch=_row(a), s_batch=mask))
    except Exception as error:  # another package's code, which may raise anything
        raise ModelError(f"Quantus' {type(metric).__name__} failed: {reason(error)}") from error
    if not np.isfinite(score):
        raise ModelError(f"Quantus' {type(metric).__name__} gave {score}")
    return [float(score)]


def _row(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels[None, None, None]


def _kinds() -> dict[str, Any]:
    metrics = library("quantus", "a metric of Quantus").AVAILABLE_METRICS
    return {kind.__name__: kind for room in ROOMS for kind in metrics[room].values()}


def _quietly(call: Any) -> Any:
    """Without what it prints and warns of."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return call()
