"""Launches, waits, copies and times of whole calls; tests/launches/LAUNCHES.md has launches by stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from bench.gpu.facts.place import Place
from bench.subjects import Subject
from dexar_fast import Explainer

SHAPES = ("llava-1.5-7b", "qwen2.5-vl-7b")
GIVEN, WRITTEN = 64, 17  # tokens
WARM_UPS = 3  # what is found out, compiled and kept comes first


def found(here: Place) -> dict[str, Any]:
    """Of the shapes in bfloat16; in a rehearsal of the first."""
    return {shape: _of(here, here.subject(shape, GIVEN)) for shape in SHAPES[: 1 if here.tiny else None]}


def _of(here: Place, subject: Subject) -> dict[str, Any]:
    measured = {}
    for name, work in _works(subject).items():
        for _ in range(WARM_UPS):
            work()
        measured[name] = here.measured(work)
    return measured


def _works(subject: Subject) -> dict[str, Callable[[], Any]]:
    explain = Explainer(subject.model).explain_inputs
    options: dict[str, Any] = {"max_new_tokens": WRITTEN, "do_sample": False}

    def followed() -> None:
        with TemporaryDirectory() as folder:
            explain(subject.inputs, out=f"{folder}/explanation", **options)

    return {
        "plain forward": subject.forward,
        f"given answer, T={GIVEN}": partial(explain, subject.inputs, target_ids=subject.targets),
        f"generate(), T={WRITTEN}": partial(subject.model.generate, **subject.inputs, **options),
        f"generated, then explained, T={WRITTEN}": partial(explain, subject.inputs, **options),
        f"explained as it is written, T={WRITTEN}": followed,
    }
