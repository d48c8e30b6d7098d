"""The process in which a kernel is tried: a kernel may take its process with it, or a GPU's context.

It says BEGUN once everything but the kernel has run: what ends it before is not the kernel's fault. Then a verdict.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import date

import torch

from dexar_fast.backends.judging import scoring, slots, tails
from dexar_fast.backends.judging.timing import ROUNDS, Race, race
from dexar_fast.backends.judging.trial import Trial
from dexar_fast.backends.verdicts.case import Case, Verdict
from dexar_fast.errors import reason

BEGUN = "begun"
ROOM = 2 * 2**30  # bytes that must be free on a GPU
TRIALS: dict[str, Callable[[Case], Trial]] = {
    "head_score": scoring.trial,
    "norm_vjp": tails.norms,
    "gated_vjp": tails.gates,
    "kv_append": slots.appends,
    "kv_copy": slots.copies,
}


def main(text: str) -> None:
    """Tries the case that is written in JSON."""
    given = json.loads(text)
    case = Case(**given | {"sizes": tuple(given["sizes"])})
    if case.device != "cpu" and torch.cuda.mem_get_info(case.device)[0] < ROOM:
        sys.exit(f"less than {ROOM >> 30} GiB are free on {case.device}")
    with torch.no_grad():
        trial = TRIALS[case.op](case)
        trial.baseline()
        wait_for(case.device)
        print(BEGUN, flush=True)
        print(json.dumps(asdict(verdict_of(case, trial))), flush=True)


def verdict_of(case: Case, trial: Trial) -> Verdict:
    """Right first, then faster."""
    today = date.today().isoformat()
    try:
        error = trial.worst()
        wait_for(case.device)
        if not error <= 1:
            return Verdict(False, f"wrong: off by {error:.3g} times what rounding explains", 0.0, today)
        raced = race(trial.kernel, trial.baseline, lambda: wait_for(case.device))
    except torch.OutOfMemoryError:
        raise
    except Exception as raised:
        return Verdict(False, f"it raises {type(raised).__name__}: {reason(raised)}", 0.0, today)
    return Verdict(raced.is_faster, _said(raced, error), raced.ratio, today)


def _said(raced: Race, error: float) -> str:
    if raced.is_faster:
        return f"{raced.ratio:.2f} times as fast, off by {error:.2g} of what rounding explains"
    return f"right, but faster in {raced.won} of {ROUNDS} rounds alone, {raced.ratio:.2f} times as fast"


def wait_for(device: str) -> None:
    """Returns once all that was launched there has run."""
    if device != "cpu":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(sys.argv[1])
