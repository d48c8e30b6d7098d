"""What moved between two files of results, and whether by more than their noise.

    python -m bench compare BEFORE.json AFTER.json

Every number is AFTER / BEFORE: of the medians of each job and of each ratio to the floor. Its interval runs from the
20th percentile of AFTER over the 80th of BEFORE to the reverse; what has 1 outside its interval moved. Ratios to a
floor of the same run hold across machines, times do not: they are compared only where the machine is the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import results

SAME = ("cpu", "cores", "threads", "gpu")


@dataclass(frozen=True)
class Change:
    """One number in both files: AFTER / BEFORE, and what the noise of both allows it to be."""

    name: str
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`more` or `less` where it moved beyond the noise, else nothing."""
        return "more" if self.low > 1 else "less" if self.high < 1 else ""

    def __str__(self) -> str:
        return f"{self.verdict:5} {self.ratio:7.3f} [{self.low:.3f}, {self.high:.3f}]  {self.name}"


def changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    """Every job and ratio that both results hold; where one is not positive (memory, at times) there is no ratio."""
    groups = {group["name"]: group for group in after["groups"]}
    kinds = ("jobs", "ratios") if same_machine(before, after) else ("ratios",)
    for old in before["groups"]:
        new = groups.get(old["name"])
        for kind in kinds if new else ():
            for name in old[kind].keys() & new[kind].keys():
                if min(old[kind][name]["min"], new[kind][name]["min"]) > 0:
                    yield _change(f"{old['name']}: {name}", old[kind][name], new[kind][name])


def _change(name: str, old: dict[str, float], new: dict[str, float]) -> Change:
    return Change(name, new["median"] / old["median"], new["p20"] / old["p80"], new["p80"] / old["p20"])


def same_machine(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return all(before["machine"].get(key) == after["machine"].get(key) for key in SAME)


def warnings(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Why the comparison may not hold."""
    for name, found in (("BEFORE", before), ("AFTER", after)):
        if found["loaded"]:
            yield f"{name} was measured on a machine that was not quiet"
        if found["quick"]:
            yield f"{name} is a quick run: its sizes are small and its rounds few"
    if not same_machine(before, after):
        yield "the machines differ: ratios to the floors of each run alone are compared"


def main(arguments: Sequence[str]) -> int:
    """Prints every change, the largest first; 2 where a file holds no results."""
    parser = argparse.ArgumentParser("python -m bench compare")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    given = parser.parse_args(arguments)
    try:
        before = results.read(given.before)
        after = results.read(given.after, before["benchmark"])
    except (OSError, ValueError) as error:
        print(error)
        return 2
    print(*(f"note: {warning}" for warning in warnings(before, after)), sep="\n")
    found = sorted(changes(before, after), key=lambda change: -abs(change.ratio - 1))
    print(*found, sep="\n")
    print(f"{sum(bool(change.verdict) for change in found)} of {len(found)} moved by more than the noise")
    return 0
