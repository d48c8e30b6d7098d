"""What the pictures of a result are called: images, then the frames of videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dexar_fast.report import placing
from dexar_fast.results.schema import Result


def names(explanation: Result) -> list[str]:
    """Such as "image 1" and "video 2, frame 13 (0.50 s)", in order."""
    count = placing.count(explanation)
    told = explanation.metadata.get("frames")
    try:
        frames = _frames(told) if told else _counted(explanation, count)
    except (KeyError, TypeError, ValueError):  # a file that says something else
        frames = _counted(explanation, count)
    return [f"image {n + 1}" for n in range(count - len(frames))] + frames[-count:]


def _frames(told: list[Mapping[str, Any]]) -> list[str]:
    several = len({frame["video"] for frame in told}) > 1
    return [f"video {int(frame['video']) + 1}, " * several + _frame(frame) for frame in told]


def _frame(told: Mapping[str, Any]) -> str:
    time = f" ({float(told['seconds']):.2f} s)" if "seconds" in told else ""
    return f"frame {int(told['frame']) + 1}{time}"


def _counted(explanation: Result, count: int) -> list[str]:
    """Of a result that only its grids tell of frames."""
    first = min((grid.image for grid in explanation.grids if grid.video), default=count)
    return [f"frame {n + 1}" for n in range(count - first)]
