"""The benchmark of attention rows: that its jobs do what their names say, and its table what its results do."""

from __future__ import annotations

import pytest
import torch
from bench_records import record

from bench import rows, tables
from bench.groups import Group
from bench.options import Options
from dexar_fast.lowlevel import attention_rows


def test_the_jobs_give_the_same_rows() -> None:
    assert all(gate.green for gate in rows.gates(Options()))
    jobs = rows.jobs(90, quick=True)
    ours, theirs = jobs["rows"](), jobs["eager"]()
    assert jobs["plain"]() is None
    assert list(ours) == list(theirs) == list(range(rows.LAYERS))
    for layer in ours:
        assert ours[layer].shape == theirs[layer].shape == (8, len(rows.ROWS), 90)


def test_a_wrong_row_turns_its_gate_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "attention_rows", lambda model, inputs, _: attention_rows(model, inputs, range(64)))
    assert not any(gate.green for gate in rows.gates(Options()))


def test_what_memory_is_beyond_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_of_child", lambda name, length, quick: {"rows": 9e6, "plain": 1e6}.get(name, 2e7))
    group = rows.memory(128, Options(quick=True))
    assert group.notes["result"] == 64 * 128 * 8 * rows.LAYERS * 4
    assert group.notes["beyond_plain_and_result"] == 8e6 - group.notes["result"]
    assert set(group.rounds) == {"plain", "rows", "first", "eager"}


def test_a_peak_is_that_of_its_job() -> None:
    threads = torch.get_num_threads()
    assert 0 <= rows.peak_of("plain", 64, quick=True) < 2**30
    assert torch.get_num_threads() == threads


def test_the_table_has_times_and_peaks() -> None:
    about = dict.fromkeys(rows.ABOUT, "a job")
    timed = Group(
        "S=64", {"kind": "time", "tokens": 64}, about, {"plain": [1.0], "rows": [2.0], "eager": [6.0]}, "rows"
    )
    peaks = {"plain": [2.0**20], "rows": [2.0**22], "first": [2.0**23], "eager": [2.0**30]}
    notes = {"result": 2**20, "beyond_plain_and_result": 2**21}
    held = Group("memory", {"kind": "memory", "tokens": 64}, about, peaks, unit="B", notes=notes)
    text = tables.rows(record(timed, held))
    assert "| eager, over rows | 3.00 |" in text
    assert "| plain, over rows | 0.50 |" in text
    assert "| rows | 4 MiB |" in text and "| eager | 1024 MiB |" in text
    assert "| rows, beyond plain and the result | 2 MiB |" in text
