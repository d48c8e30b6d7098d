"""A profile as a picture: the roofline of the machine with every stage on it, and the stages as bars."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def figure(report: dict[str, Any]) -> Figure:
    """Roofline on the left, time by stage on the right."""
    about = report["about"]
    drawn = Figure(figsize=(13, 5), layout="constrained")
    left, right = drawn.subplots(1, 2)
    _roofline(left, report)
    _bars(right, report)
    drawn.suptitle(f"{about['model']}, {about['dtype']}, {about['device']}, {about['new_tokens']} tokens")
    return drawn


def _roofline(axes: Axes, report: dict[str, Any]) -> None:
    """Arithmetic rate against arithmetic intensity; only what stays in the caches gets above the line."""
    limits = report["limits"]
    rows = [row for row in report["stages"] if row["flops"] and row["bytes"]]
    ridge = limits["flops_per_second"] / limits["bytes_per_second"]
    intensities = [row["flops"] / row["bytes"] for row in rows]
    line = np.geomspace(min([ridge, *intensities]) / 4, max([ridge, *intensities]) * 4, 200)
    axes.plot(line, np.minimum(limits["flops_per_second"], line * limits["bytes_per_second"]) / 1e9, color="black")
    for row, intensity in zip(rows, intensities, strict=True):
        axes.plot(intensity, row["flops_per_second"] / 1e9, "o", label=row["name"])
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="GFLOP/s")
    axes.legend(fontsize=8)


def _bars(axes: Axes, report: dict[str, Any]) -> None:
    rows = report["stages"][::-1]
    bars = axes.barh([row["name"] for row in rows], [1e3 * row["seconds"] for row in rows])
    axes.bar_label(bars, [f"{row['share']:.1%}" for row in rows], padding=3, fontsize=8)
    axes.set_xmargin(0.1)
    axes.set_xlabel("ms")
