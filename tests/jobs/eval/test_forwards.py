"""Metrics that hide parts of the picture, on made curves and diagnoses: which words count, what the right answer is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dexar_fast.evaluation.curves import Revealing
from dexar_fast.jobs.eval.measures import forwards, registry
from dexar_fast.jobs.eval.measures.base import SkippedError
from dexar_fast.methods import Eagle
from dexar_fast.metrics.hiding.revealing import Areas


def case(**fields: Any) -> Any:
    """What the metrics read of a case."""
    kept: dict[Any, Any] = {}
    given = {"explainer": SimpleNamespace(method=Eagle()), "explanation": None, "null": None, "seed": 0, **fields}
    return SimpleNamespace(once=lambda key, make: kept.setdefault(key, make()), **given)


def parts(name: str, given: Any) -> list[float]:
    metric = registry.of(name)
    return list(metric.parts(given, metric.fill))


def test_sensitive_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first word is as likely without the picture; the second goes from .1 to .9 by .7: (.4 + .8) / 2."""
    insertion, deletion = [[0.8, 0.1], [0.8, 0.7], [0.9, 0.9]], [[0.9, 0.9], [0.9, 0.3], [0.8, 0.1]]
    found = Revealing("black", [0, 0.5, 1], insertion, deletion, Areas(0.7, 0.6, 0.9))
    asked: list[Any] = []
    monkeypatch.setattr(forwards, "insertion_deletion", lambda *_, **how: asked.append(how) or found)
    given = case()
    assert parts("insertion", given) == [0.7] and parts("highest", given) == [0.9]
    assert parts("insertion-sensitive", given) == pytest.approx([0.6])
    assert parts("deletion-sensitive", given) == pytest.approx([0.4])
    assert all(each == {"fill": "black", "seed": 0} for each in asked)
    flat = Revealing("black", [0, 1], [[0.8], [0.9]], [[0.9], [0.8]], Areas(0.85, 0.85, 0.9))
    monkeypatch.setattr(forwards, "insertion_deletion", lambda *_, **how: flat)
    with pytest.raises(SkippedError, match="no word is sensitive"):
        parts("insertion-sensitive", case())
