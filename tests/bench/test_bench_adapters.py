"""Adapters beside their tools: a row both ways, a tool that is not installed, the table."""

from __future__ import annotations

import pytest
from bench_records import record

from bench import tables
from bench.adapters import measuring
from bench.adapters.tool import Row, Tool
from bench.options import Options


def test_a_row_runs_both_ways_and_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    row = Row("one map", lambda: ran.append("ours"), lambda: ran.append("theirs"), "the same map", rounds=3)
    here, absent = Tool("Here", "pytest", lambda common: [row]), Tool("Absent", "no-such-tool", lambda common: [row])
    monkeypatch.setattr(measuring, "TOOLS", (here, absent))
    first, second = measuring.groups(Options(rounds=2))
    assert ran.count("ours") == ran.count("theirs") == 2
    assert first.parameters["version"] == pytest.__version__ and len(first.ratios()["ours/theirs"]) == 2
    first.rounds["theirs"][:] = [2.0, 2.0]
    first.rounds["ours"][:] = [0.5, 0.5]
    lines = tables.adapters(record(first, second)).splitlines()
    assert lines[2] == f"| Here {pytest.__version__}: one map | 500 ms | 2 s | 0.25 |"
    assert lines[3] == "| Absent |  |  | not installed |"


def test_every_tool_is_measured_once() -> None:
    names = [tool.name for tool in measuring.TOOLS]
    assert len(set(names)) == len(names) and measuring.BENCHMARK.name in tables.TABLES


@pytest.mark.parametrize("tool", measuring.TOOLS, ids=lambda tool: tool.name)
def test_the_rows_of_a_tool_are_named_and_ready(tool: Tool) -> None:
    if tool.version is None:
        pytest.skip(f"{tool.name} is not installed")
    rows = tool.rows(measuring.common())
    assert rows and len({row.name for row in rows}) == len(rows) and all(row.about for row in rows)
