"""The tables of an evaluation, from its figures: what both reports show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isinf
from typing import Any

from dexar_fast.jobs.eval import chance_methods
from dexar_fast.jobs.eval.measures.base import ARROWS

Found = dict[str, Any]
"""What `figures` gives of one model."""
CHANCE = chance_methods.NAMES[0]  # the chance map that each method is compared with in the tables
MARK = "*"
FEWEST = 10  # pictures: of fewer, a bootstrap interval is too narrow to go by
LEGEND = (
    f"{MARK}: better than each of the chance maps {', '.join(chance_methods.NAMES)} (some metrics refuse the uniform "
    f"one, and are judged by those that they score), the 95 % interval of every paired difference excluding 0, of "
    f"{FEWEST} pictures or more. Intervals are bootstrapped over pictures, with all their items; p is of a sign-flip "
    "permutation test and not corrected for the number of comparisons."
)


@dataclass(frozen=True)
class Table:
    """Texts in rows under heads, with a title and a sentence above them."""

    title: str
    about: str
    heads: list[str]
    rows: list[list[str]] = field(default_factory=list)


def summary(found: Found) -> Table:
    """Every method by every metric."""
    metrics = _names(found["figures"], "metric")
    cells = {(each["method"], each["metric"]): each for each in found["figures"]}
    rows = [
        [method, *(_marked(found, cells.get((method, metric))) for metric in metrics)]
        for method in _names(found["figures"], "method")
    ]
    heads = [head(next(each for each in found["figures"] if each["metric"] == metric)) for metric in metrics]
    return Table("All methods", LEGEND, ["method", *heads], rows)


def of_metrics(found: Found, first: str) -> Iterator[Table]:
    """A table for each metric: n, the figure and its interval, and how far it is from the first method and chance."""
    heads = ["method", "n", "figure", f"minus {first}", "p", f"minus {CHANCE}", "p"]
    for metric in _names(found["figures"], "metric"):
        own = [each for each in found["figures"] if each["metric"] == metric]
        rows = [[each["method"], str(each["n"]), interval(each), *_against(found, each, first)] for each in own]
        yield Table(head(own[0]), f"{own[0]['about']}; {own[0]['better']} is better.", heads, rows)


def left_out(found: Found) -> Table:
    """What has no figure for some items, and why."""
    rows = [
        [kind, _listed(each["metrics"]), _listed(each["methods"]), str(each["items"]), each["reason"]]
        for kind in ("skipped", "failed")
        for each in found[kind]
    ]
    rows += [["broken item", "all", "all", "1", f"{key}: {error}"] for key, error in found["errors"].items()]
    return Table("Left out", "", ["what", "metrics", "methods", "items", "why"], rows)


def number(value: float | str) -> str:
    """Three digits; JSON has no infinity, which is a text there."""
    found = float(value) + 0.0  # never -0
    if isinf(found):
        return "∞" if found > 0 else "-∞"
    return f"{found:.0f}" if abs(found) >= 1000 else f"{found:.3g}"


def is_above_chance(found: Found, method: str, metric: str) -> bool:
    """Whether every paired difference from a chance map is in the better direction, with its interval.

    Chance maps that the metric does not score are passed over; without any that it scores, nothing is above chance.
    """
    own = [each for each in found["figures"] if each["metric"] == metric]
    against = [difference(found, metric, method, each["method"]) for each in own if each["null"]]
    better = own[0]["better"]
    return bool(against) and all(
        each is not None and side(each) == (1 if better == "higher" else -1) for each in against
    )


def side(each: dict[str, Any]) -> int:
    """1 or -1 where the interval of a difference lies above or below 0, of enough pictures; else 0."""
    return 0 if each.get("pictures", each["n"]) < FEWEST else int(float(each["low"]) > 0) - int(float(each["high"]) < 0)


def _marked(found: Found, figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    above = not figure["null"] and is_above_chance(found, figure["method"], figure["metric"])
    return number(figure["value"]) + (MARK if above else "")


def _against(found: Found, figure: dict[str, Any], first: str) -> list[str]:
    """The difference from the first method and its p, then that from chance."""
    metric, method = figure["metric"], figure["method"]
    own = difference(found, metric, first, method)
    cells = ["", ""] if own is None else [interval(_turned(own)), number(own["p"])]
    chance = difference(found, metric, method, CHANCE)
    return [*cells, *(["", ""] if chance is None else [interval(chance), number(chance["p"])])]


def difference(found: Found, metric: str, method: str, other: str) -> dict[str, Any] | None:
    """That of a method from another, if it was made."""
    asked = (metric, method, other)
    return next(
        (each for each in found["differences"] if (each["metric"], each["method"], each["other"]) == asked), None
    )


def _turned(each: dict[str, Any]) -> dict[str, Any]:
    """The same difference, seen from the other method."""
    value, low, high = (-float(each[name]) for name in ("value", "high", "low"))
    return {"value": value, "low": low, "high": high}


def interval(each: dict[str, Any]) -> str:
    """A figure or a difference, with its interval."""
    return f"{number(each['value'])} [{number(each['low'])}, {number(each['high'])}]"


def head(figure: dict[str, Any]) -> str:
    """The metric's name, which way is better, and the fill if parts are hidden."""
    fill = f" (fill: {figure['fill']})" if figure["fill"] else ""
    return f"{figure['metric'].partition(':fill')[0]} {ARROWS[figure['better']]}{fill}"


def _names(rows: list[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(each[key] for each in rows))


def _listed(names: list[str]) -> str:
    return ", ".join(names) if all(names) else "all"
