"""The figures of one evaluation, by metric and method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from bench.evaluation import runs
from dexar_fast.jobs.eval import chance_methods, tables
from dexar_fast.jobs.eval.report import markdown

PLAIN, UNFILTERED, ALL_TOKENS = runs.ONE_PASS[:3]
Beside = Literal["better", "worse", "alike"]


class Figures:
    """What a file in bench/results/evaluation holds."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        (self.model,) = found["models"]
        self.items: int = self.model["items"]
        self.versions, self.date = found["versions"], found["date"]
        self.methods = list(dict.fromkeys(each["method"] for each in self.model["figures"]))
        self.metrics = list(dict.fromkeys(each["metric"] for each in self.model["figures"]))

    @property
    def real(self) -> list[str]:
        """The methods that are no chance maps."""
        return [method for method in self.methods if method not in chance_methods.NAMES]

    def value(self, metric: str, method: str) -> float:
        return float(self.row(metric, method)["value"])

    def percent(self, metric: str, method: str) -> str:
        return f"{100 * self.value(metric, method):.2f}"

    def row(self, metric: str, method: str | None = None) -> dict[str, Any]:
        """A figure with its interval, its n and what the metric is; of the first method if none is named."""
        return self._rows[metric, method or self.methods[0]]

    def head(self, metric: str) -> str:
        return tables.head(self.row(metric))

    def cell(self, metric: str, method: str) -> str:
        """The figure, its interval and its mark; nothing where the metric is not of this method."""
        row = self._rows.get((metric, method))
        if row is None:
            return ""
        above = method in self.real and self.above_chance(metric, method)
        return tables.interval(row) + (tables.MARK if above else "")

    def above_chance(self, metric: str, method: str) -> bool:
        """Better than every chance map, all intervals excluding 0."""
        return tables.is_above_chance(self.model, method, metric)

    def beside_plain(self, metric: str, method: str) -> Beside:
        """A method beside DEX-AR, by the interval of the paired difference."""
        row = tables.difference(self.model, metric, PLAIN, method)
        side = 0 if row is None else tables.side(row)
        if side == 0:
            return "alike"
        return "worse" if (side > 0) == (self.row(metric)["better"] == "higher") else "better"

    def best(self, metric: str, methods: Sequence[str]) -> str:
        """The method with the best figure."""
        sign = -1 if self.row(metric)["better"] == "higher" else 1
        return min(methods, key=lambda name: sign * self.value(metric, name))

    def table(self, metrics: Sequence[str], methods: Sequence[str] | None = None) -> str:
        """Methods by metrics, in Markdown."""
        rows = [[f"`{name}`", *(self.cell(each, name) for each in metrics)] for name in methods or self.methods]
        return table(["method", *map(self.head, metrics)], rows)

    @cached_property
    def _rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(each["metric"], each["method"]): each for each in self.model["figures"]}


def table(heads: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    return markdown(tables.Table("", "", heads, rows))
