"""Whether anybody else uses the machine: figures taken beside another job are worthless."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 0.3  # cores in use
PATIENCE = 60.0  # seconds
STEP = 5.0


def load_average() -> float:
    """Of the last minute; 0 where the system keeps none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


@dataclass(frozen=True)
class Load:
    """The load average before the first benchmark and how long it was waited for, in seconds."""

    before: float
    waited: float

    @property
    def too_high(self) -> bool:
        return self.before > LIMIT


def wait_for_quiet(
    patience: float = PATIENCE,
    read: Callable[[], float] = load_average,
    sleep: Callable[[float], object] = time.sleep,
) -> Load:
    """Waits up to `patience` seconds for a load of at most 0.3, and says what it found."""
    waited, now = 0.0, read()
    if now > LIMIT and patience > 0:
        print(f"the load is {now:.2f}: waiting up to {patience:.0f} s for {LIMIT}", flush=True)
    while now > LIMIT and waited < patience:
        sleep(STEP)
        waited += STEP
        now = read()
    return Load(now, waited)


def busy_seconds() -> float | None:
    """CPU seconds that all processes have used on the cores this one may use; None where that is not told."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return None
    used = [line.split() for line in lines if line.split()[:1] and line.split()[0] in ours]
    # user, nice, system of "cpuN user nice system idle iowait irq softirq steal ...", and what a host took (steal)
    return sum(sum(map(int, (*row[1:4], row[8]))) for row in used) / tick if used else None


def own_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


@dataclass
class Foreign:
    """How many cores others used, on average, since this was made."""

    busy: Callable[[], float | None] = busy_seconds
    own: Callable[[], float] = own_seconds
    clock: Callable[[], float] = time.perf_counter
    _start: tuple[float | None, float, float] = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.busy(), self.own(), self.clock()

    def cores(self) -> float | None:
        """None where the system does not tell."""
        busy, own, clock = self._start
        now = self.busy()
        elapsed = self.clock() - clock
        if busy is None or now is None or elapsed <= 0:
            return None
        return max(0.0, (now - busy - (self.own() - own)) / elapsed)
