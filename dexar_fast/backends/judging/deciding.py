"""Decides which kernels this machine takes: one process after another, and one decider at a time."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import date
from typing import Any

from dexar_fast import files
from dexar_fast.backends.judging.child import BEGUN
from dexar_fast.backends.verdicts import kept
from dexar_fast.backends.verdicts.case import Case, Verdict

_later: subprocess.Popen[bytes] | None = None
LIMIT = 60.0  # seconds for a trial: a GPU's compilers take a few
CHILD = [sys.executable, "-m", "dexar_fast.backends.judging.child"]
DECIDER = [sys.executable, "-m", "dexar_fast.backends.judging"]


def decide(cases: Sequence[Case], told: Callable[[Case, Verdict | None], None] = lambda *_: None) -> None:
    """Tries each case anew, and keeps the verdict; waits for whoever else is deciding.

    Args:
        told: hears of each; None: nothing could be found out, and nothing is kept.
    """
    with alone(wait=True):
        for case in cases:
            verdict = tried(case)
            if verdict is not None:
                kept.keep(case, verdict)
            told(case, verdict)


def decide_new(cases: Sequence[Case]) -> None:
    """Decides what no verdict is kept on; nothing while another process decides."""
    with alone(wait=False) as here:
        for case in cases if here else ():
            verdict = kept.found(case) or tried(case)
            if verdict is not None:
                kept.keep(case, verdict)


def decide_later() -> None:
    """Has a process of its own decide what this one has asked for, once, at low priority.

    Its verdicts are for later processes: this one keeps to what it found. The cache must be writable.
    """
    global _later
    cases = kept.wanted()
    if _later is None and cases and os.environ.get(kept.ENVIRONMENT) not in ("off", "kept"):
        with suppress(OSError):
            _later = _started([*DECIDER, json.dumps([asdict(case) for case in cases])], subprocess.DEVNULL, nice=10)


def tried(case: Case) -> Verdict | None:
    """What a process of its own found; None if it could not begin."""
    child = _started([*CHILD, json.dumps(asdict(case))], subprocess.PIPE)
    try:
        said = child.communicate(timeout=LIMIT)[0].decode(errors="replace").splitlines()
    except subprocess.TimeoutExpired:
        said = _killed(child)
        return _refused(f"it did not end within {LIMIT:g} seconds") if BEGUN in said else None
    if BEGUN not in said:
        return None
    with suppress(ValueError, TypeError):
        return Verdict.read(json.loads(said[-1]))
    return _refused(_end(child.returncode))


def _killed(child: subprocess.Popen[bytes]) -> list[str]:
    """Ends it with all that it has started; returns what it had said."""
    os.killpg(child.pid, signal.SIGKILL)
    return child.communicate()[0].decode(errors="replace").splitlines()


def _started(command: list[str], output: int, nice: int = 0) -> subprocess.Popen[bytes]:
    """A process that finds the modules that this one does, in a group of its own."""
    found = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    devices: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.DEVNULL}
    patient = ["nice", "-n", str(nice)] if nice else []
    return subprocess.Popen([*patient, *command], env=os.environ | found, start_new_session=True, **devices)


def _refused(why: str) -> Verdict:
    return Verdict(False, f"its trial failed: {why}", 0.0, date.today().isoformat())


def _end(status: int) -> str:
    if status >= 0:
        return f"its process ended with status {status} and without a verdict"
    return f"its process was ended by {signal.Signals(-status).name}"


@contextmanager
def alone(wait: bool) -> Iterator[bool]:
    """One decider of the user at a time: two would time each other. Gives whether this is the one.

    Where nothing can be kept, whoever would wait goes on, and another does not begin.
    """
    path = files.user_cache("verdicts", "deciding")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:
        yield wait
        return
    with open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
