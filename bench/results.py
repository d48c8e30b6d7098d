"""Files of results: everything about how a figure came about stands beside it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.gates import Gate, require
from bench.groups import Benchmark, Group
from bench.load import LIMIT, Load
from bench.options import Options

SCHEMA = 1
FOLDER = machine.ROOT / "bench" / "results"
KEYS = (
    "schema", "benchmark", "about", "quick", "loaded", "load", "machine", "versions", "commit", "date", "command",
    "seconds", "gates", "groups", "conclusions",
)  # fmt: skip
KINDS = {"benchmark": str, "machine": dict, "versions": dict, "commit": str, "groups": list, "conclusions": dict}


def record(
    benchmark: Benchmark,
    options: Options,
    gates: Sequence[Gate],
    groups: Sequence[Group],
    load: Load,
    foreign: float | None,
    seconds: float,
    date: str,
) -> dict[str, Any]:
    """One benchmark's results as plain JSON.

    Raises:
        RedGate: a gate is red, or none was checked.
    """
    require(gates)
    return {
        "schema": SCHEMA,
        "benchmark": benchmark.name,
        "about": benchmark.about,
        "quick": options.quick,
        "loaded": load.too_high or (foreign is not None and foreign > LIMIT),
        "load": {"before": load.before, "waited_s": load.waited, "foreign_cores_during": foreign},
        "machine": machine.facts(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "date": date,
        "command": machine.command(),
        "seconds": seconds,
        "gates": [gate.record() for gate in gates],
        "groups": [group.record() for group in groups],
        "conclusions": benchmark.conclude(groups),
    }


def write(found: dict[str, Any], path: Path) -> None:
    """Writes results as JSON."""
    write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Writes a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path, benchmark: str | None = None) -> dict[str, Any]:
    """A file that `write` wrote, of this benchmark where one is named.

    Raises:
        ValueError: no JSON, another schema or benchmark, or keys missing. OSError: no such file.
    """
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{path} holds no results of schema {SCHEMA}: run the benchmark again")
    missing = [key for key in KEYS if key not in found]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    wrong = [key for key, kind in KINDS.items() if not isinstance(found[key], kind)]
    if wrong:
        raise ValueError(f"{path} is damaged at {', '.join(wrong)}: run the benchmark again")
    if benchmark not in (None, found["benchmark"]):
        raise ValueError(f"{path} holds results of {found['benchmark']}, not of {benchmark}")
    return found
