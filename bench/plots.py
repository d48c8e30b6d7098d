"""The README's pictures, drawn from files of results: `python -m bench plot`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import machine, results

AXES = {"T": "answer tokens T", "P": "prompt tokens P", "N": "visual tokens N", "L": "layers L"}
LABELS = {"s": ("time in s", 1.0), "B": ("peak memory in MiB", 2.0**-20)}
PICTURE = machine.ROOT / ".github" / "scaling.png"


def scaling(found: dict[str, Any]) -> Figure:
    """Time above, memory below, a column for each of T, P, N and L; both scales logarithmic."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    grid = figure.subplots(2, len(AXES), squeeze=False)
    for column, axis in enumerate(AXES):
        for row, unit in enumerate(LABELS):
            _panel(grid[row][column], found, axis, unit)
    grid[0][0].legend()
    figure.suptitle(
        f"{found['machine']['cpu']}, {found['machine']['cores']} cores; commit {machine.short(found['commit'])}"
    )
    return figure


def _panel(panel: Axes, found: dict[str, Any], axis: str, unit: str) -> None:
    label, scale = LABELS[unit]
    groups = [g for g in found["groups"] if g["parameters"]["axis"] == axis and g["unit"] == unit]
    for job in ("explain", "forward"):
        points = [(g["parameters"]["size"], g["jobs"][job]["min"] * scale) for g in groups if job in g["jobs"]]
        if points:
            panel.plot(*zip(*points, strict=True), marker="o", markersize=3, label=job)
    growth = found["conclusions"][axis].get("time" if unit == "s" else "memory")
    if growth:
        panel.set_title(f"exponent {growth['exponent']:.2f} [{growth['low']:.2f}, {growth['high']:.2f}]", fontsize=9)
    panel.set_xscale("log", base=2)
    panel.set(yscale="log", xlabel=AXES[axis], ylabel=label)


def main(arguments: Sequence[str]) -> int:
    """Draws `.github/scaling.png` from this machine's scaling.json."""
    parser = argparse.ArgumentParser("python -m bench plot", description=__doc__)
    parser.add_argument("--results", type=Path, default=results.FOLDER / machine.slug() / "scaling.json")
    parser.add_argument("--out", type=Path, default=PICTURE)
    given = parser.parse_args(arguments)
    try:
        figure = scaling(results.read(given.results, "scaling"))
        given.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(given.out, dpi=110)
    except (OSError, ValueError) as error:
        print(error)
        return 2
    print(given.out)
    return 0
