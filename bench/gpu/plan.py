"""One visit to a machine with a GPU: every step within its own limit, all of them within one deadline.

A step that fails or runs over does not stop those behind it. `summary.json` is written anew after each, beside
`log.txt` (what all have said), `facts.json`, and the files of the benchmarks, which grow after each group.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu import about, running, steps
from bench.gpu.running import Outcome, Step
from bench.results import write

TOTAL = 530.0  # seconds
REFUSED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the plan; 0 if every step went well, 1 if one did not, 2 where there is no GPU or no such step."""
    start = time.monotonic()
    given = _parsed(arguments)
    signal.signal(signal.SIGTERM, _stop)
    found = about.asked()
    if not found["cards"] and not given.rehearse:
        print("no GPU here: torch sees none (--rehearse runs the plan's code at tiny sizes)")
        return REFUSED
    planned = steps.steps(found, given.out, given.rehearse)
    unknown = sorted(set(given.names) - {step.name for step in planned})
    if unknown:
        print(f"no step {', '.join(unknown)}: choose from {', '.join(step.name for step in planned)}")
        return REFUSED
    chosen = [step for step in planned if step.name in (given.names or [step.name])]
    given.out.mkdir(parents=True, exist_ok=True)
    return run(chosen, start + given.seconds, given.out, found | {"rehearsal": given.rehearse})


def run(planned: Sequence[Step], deadline: float, out: Path, about: dict[str, Any]) -> int:
    """The steps, until a time of the monotonic clock; 1 if one did not go well."""
    outcomes: list[Outcome] = []
    print(json.dumps(about), flush=True)
    (out / "log.txt").unlink(missing_ok=True)
    for step in planned:
        outcomes.append(running.run(step, deadline - time.monotonic(), out / "log.txt"))
        print(outcomes[-1], flush=True)
        _write(out / "summary.json", about, outcomes)
    return int(not all(outcome.well for outcome in outcomes))


def _write(path: Path, about: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    write(about | {"steps": [vars(outcome) for outcome in outcomes]}, path)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    out = Path(os.environ.get("OUT") or "out/gpu")
    parser = argparse.ArgumentParser("bash bench/gpu.sh", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="step", help="all, unless some are named")
    parser.add_argument("--rehearse", action="store_true", help="where there is no GPU: tiny models, no figures")
    parser.add_argument("--seconds", type=float, default=TOTAL, help=f"for all steps together [{TOTAL:.0f}]")
    parser.add_argument("--out", type=Path, default=out, help="where results go [$OUT, or out/gpu]")
    return parser.parse_args(arguments)


def _stop(number: int, frame: Any) -> None:
    """Ends the plan as an error does: the step that runs ends with it."""
    sys.exit(128 + number)
