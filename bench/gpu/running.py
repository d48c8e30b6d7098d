"""One step of the plan: a command in a group of processes of its own, which ends by itself or at its limit."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

GRACE = 5.0  # seconds between the request to end and the end
LEAST = 5.0  # seconds with which a step begins
KEPT = 2**20  # bytes of what a step says
PASSED, FAILED, OVER, OUT, LATE = "passed", "failed", "over its time", "left out", "no time left"


@dataclass(frozen=True)
class Step:
    """What is run, and for how long at most."""

    name: str
    command: tuple[str, ...]
    limit: float  # seconds
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""  # a program or a module, without which the step is left out
    refused: str = "(?!)"  # a pattern: where the step says this, the machine does not allow it
    wrong: str = "(?!)"  # a pattern: where it says this, it has failed, whatever its status


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    name: str
    status: str
    seconds: float = 0.0
    note: str = ""

    @property
    def well(self) -> bool:
        return self.status in (PASSED, OUT)

    def __str__(self) -> str:
        return f"{self.name:14} {self.status:14} {self.seconds:6.1f} s   {self.note}".rstrip()


def run(step: Step, left: float, log: Path) -> Outcome:
    """Runs a step within its limit and the seconds that are left to all; what it says is added to the log."""
    if step.needs and not available(step.needs):
        return Outcome(step.name, OUT, note=f"there is no {step.needs} here")
    limit = min(step.limit, left - GRACE)
    if limit < LEAST:
        return Outcome(step.name, LATE)
    with open(log, "ab") as file:
        file.write(f"\n== {step.name}: {' '.join(step.command)}\n".encode())
        file.flush()
        begin, start = file.tell(), time.monotonic()
        status = _run(step, limit, file.fileno())
    said = _shortened(log, begin)
    return _outcome(step, status, time.monotonic() - start, limit, said)


def available(needed: str) -> bool:
    """Whether there is such a program, or module of this Python."""
    return shutil.which(needed) is not None or find_spec(needed) is not None


def _run(step: Step, limit: float, output: int) -> int | None:
    """The status of the step's command; None if it had to be ended."""
    process = subprocess.Popen(
        step.command,
        env=os.environ | step.environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        _signal(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE / 2)
        return None
    finally:
        _signal(process.pid, signal.SIGKILL)  # the whole group: also what a step left behind
        process.wait()


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _shortened(log: Path, begin: int) -> str:
    """What was written behind `begin`; of more than is kept only the end stays in the file."""
    with open(log, "r+b") as file:
        file.seek(begin)
        said = file.read()
        if len(said) > KEPT:
            said = b"...\n" + said[-KEPT:]
            file.seek(begin)
            file.write(said)
            file.truncate()
    return said.decode(errors="replace")


def _outcome(step: Step, status: int | None, seconds: float, limit: float, said: str) -> Outcome:
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "")[:200]
    refusal = re.search(step.refused, said)
    if refusal:
        return Outcome(step.name, OUT, seconds, f"not possible here: {refusal[0]}")
    if status is None:
        return Outcome(step.name, OVER, seconds, f"ended after {limit:.0f} s: {last}")
    wrong = re.search(step.wrong, said)
    if status or wrong:
        return Outcome(step.name, FAILED, seconds, wrong[0] if wrong else f"status {status}: {last}")
    return Outcome(step.name, PASSED, seconds, last)
