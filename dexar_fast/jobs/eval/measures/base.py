"""What a metric is here, and what it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dexar_fast.errors import InputError
from dexar_fast.jobs.eval.case import Case
from dexar_fast.metrics.intervals import Combine, mean

Better = Literal["higher", "lower"]
ARROWS: dict[Better, str] = {"higher": "↑", "lower": "↓"}


class SkippedError(Exception):
    """A metric is not defined for an item, or for a method; the message says why."""


@dataclass(frozen=True)
class Metric:
    """A metric of one item and one method.

    Attributes:
        parts: [P] finite numbers of a case and the fill; `combine` makes a figure of their means over items. Raises
            SkippedError.
        fill: what stands where the picture is hidden; None where nothing is.
    """

    name: str
    better: Better
    about: str
    parts: Callable[[Case, Any], Sequence[float]]
    combine: Combine = mean
    fill: str | None = None

    def filled(self, fill: str) -> Metric:
        """The same with another fill. Raises InputError where nothing is hidden."""
        if self.fill is None:
            raise InputError(f"metric {self.name!r} hides nothing, so it has no fill")
        return replace(self, name=f"{self.name}:fill={fill}", fill=fill)
