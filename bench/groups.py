"""What one benchmark hands back: groups of jobs that were measured side by side, and the gates before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.gates import Gate
from bench.options import Options
from bench.summaries import summary, within_rounds
from bench.timing import Job, Timer, cpu_timer, interleaved

SCALES = {"s": (1e3, "ms"), "B": (2**-20, "MiB"), "FLOP/s": (1e-12, "TFLOP/s"), "B/s": (1e-9, "GB/s")}


@dataclass(frozen=True)
class Group:
    """Rounds of several jobs under the same parameters, in seconds or another unit; ratios are to `floor`."""

    name: str
    parameters: dict[str, Any]
    about: dict[str, str]  # what each job does, and so what differs
    rounds: dict[str, list[float]]
    floor: str | None = None
    unit: str = "s"
    notes: dict[str, Any] = field(default_factory=dict)

    def ratios(self) -> dict[str, list[float]]:
        """job/floor -> the ratio within each round."""
        if self.floor is None:
            return {}
        floor = self.rounds[self.floor]
        others = {name: rounds for name, rounds in self.rounds.items() if name != self.floor and rounds}
        return {f"{name}/{self.floor}": within_rounds(rounds, floor) for name, rounds in others.items()}

    def record(self) -> dict[str, Any]:
        """As stored in a file of results."""
        jobs = {name: {"about": self.about[name]} | summary(rounds) for name, rounds in self.rounds.items()}
        return {
            "name": self.name,
            "parameters": self.parameters,
            "unit": self.unit,
            "floor": self.floor,
            "jobs": jobs,
            "ratios": {name: summary(ratio) for name, ratio in self.ratios().items()},
            "notes": self.notes,
        }


@dataclass(frozen=True)
class Benchmark:
    """One sub-benchmark: its gates run first, then its groups, then what follows from all of them."""

    name: str
    about: str  # what it compares and what differs between the jobs
    gates: Callable[[Options], list[Gate]]
    groups: Callable[[Options], Iterator[Group]]
    conclude: Callable[[Sequence[Group]], dict[str, Any]] = lambda groups: {}


def timed(
    name: str,
    parameters: dict[str, Any],
    jobs: Sequence[Job],
    *,
    rounds: int,
    floor: str,
    warm_ups: int = 1,
    timer: Timer = cpu_timer,
    notes: dict[str, Any] | None = None,
) -> Group:
    """Times jobs against one of them, in interleaved rounds."""
    seconds = interleaved(jobs, rounds, warm_ups, timer)
    return Group(name, parameters, {job.name: job.about for job in jobs}, seconds, floor, notes=notes or {})


def table(group: Group) -> str:
    """A group in lines of text."""
    scale, unit = SCALES[group.unit]
    ratios = {name.partition("/")[0]: ratio for name, ratio in group.ratios().items()}
    lines = [f"{group.name}   [{unit}; n: min, median, 20-80 %]"]
    for name, rounds in group.rounds.items():
        found = summary(rounds)
        low, median, p20, p80 = (scale * found[key] for key in ("min", "median", "p20", "p80"))
        line = f"  {name:22} n={len(rounds):<3} {low:10.4g} {median:10.4g}   {p20:.4g}-{p80:.4g}"
        if name in ratios:
            ratio = summary(ratios[name])
            line += f"   {ratio['median']:.3f} x {group.floor} [{ratio['p20']:.3f}, {ratio['p80']:.3f}]"
        lines.append(line)
    return "\n".join(lines)
