"""Records of measurements, made up."""

from __future__ import annotations

from typing import Any

from bench import (
    results,
)
from bench.gates import Gate
from bench.groups import Benchmark, Group
from bench.load import Load
from bench.options import Options

QUIET = Load(before=0.1, waited=0.0)

GREEN, RED = Gate("right", 1e-9, 1e-5), Gate("wrong", 1e-2, 1e-5)


def record(*groups: Group, load: Load = QUIET, foreign: float | None = 0.0, quick: bool = False) -> dict[str, Any]:
    benchmark = Benchmark("explain", "what it compares", lambda options: [GREEN], lambda options: iter(groups))
    return results.record(benchmark, Options(quick=quick), [GREEN], groups, load, foreign, 1.0, "2026-11-21")
