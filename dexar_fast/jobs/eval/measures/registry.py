"""Metrics by name."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from dexar_fast.errors import InputError
from dexar_fast.evaluation.hiding import ALL_FILLS
from dexar_fast.jobs.eval.measures import corrections, forwards, maps, quantus, sanity, words
from dexar_fast.jobs.eval.measures.base import Metric
from dexar_fast.methods.knobs import one_of

_OURS = {metric.name: metric for room in (maps, words, forwards, corrections, sanity) for metric in room.METRICS}


def names() -> list[str]:
    """Every metric of ours."""
    return list(_OURS)


def of(spelled: str) -> Metric:
    """A metric from its name ("epg"), its name and fill ("deletion:fill=blur"), or one of Quantus ("quantus:AUC").

    Raises:
        InputError: no such metric or fill. LibraryError: Quantus is not installed.
    """
    if spelled.startswith(quantus.PREFIX):
        return quantus.of(spelled.removeprefix(quantus.PREFIX))
    name, _, knob = spelled.partition(":")
    if name not in _OURS:
        close = get_close_matches(name, _OURS, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"metric {name!r} is none of {', '.join(_OURS)}, quantus:NAME{hint}")
    return _filled(_OURS[name], spelled, knob) if knob else _OURS[name]


def _filled(metric: Metric, spelled: str, knob: str) -> Metric:
    key, _, fill = knob.partition("=")
    if key != "fill":
        raise InputError(f"metric {spelled!r} is not NAME or NAME:fill=FILL")
    one_of("fill", fill, ALL_FILLS)
    return metric.filled(fill)


def each(spelled: Sequence[str]) -> list[Metric]:
    """Several, each once. Raises InputError."""
    found = [of(one) for one in spelled]
    repeated = [metric.name for index, metric in enumerate(found) if metric in found[:index]]
    if repeated or not found:
        raise InputError(f"metric {repeated[0]!r} is named twice" if repeated else "no metric is named")
    return found
