"""Quantus."""

from __future__ import annotations

from collections.abc import Sequence

from bench.adapters.tool import Common, Row, Tool


def rows(common: Common) -> Sequence[Row]:
    return []


TOOL = Tool("Quantus", "quantus", rows)
