"""The benchmark of the KV cache: that its jobs do what their names say, and its table what its results do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bench_records import record
from transformers import Cache, DynamicCache

from bench import cache, command, results, tables
from bench.groups import Group
from bench.options import Options
from bench.subjects import subject
from dexar_fast import Explainer
from dexar_fast.kvcache import weights
from dexar_fast.profile.shapes import build

TINY = {"layers": 2, "grid": 4, "width": 64}


def test_every_cache_holds_the_same_number_of_tokens_and_takes_a_step() -> None:
    model = build("llava-512", **TINY).model
    for found in cache.caches(model, tokens=20, room=4).values():
        assert int(found.get_seq_length()) == 20
        assert cache.step(model, found).shape[:2] == (1, 1)
        assert int(found.get_seq_length()) == 21


def test_a_wrong_cache_turns_its_gate_red(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(gate.green for gate in cache.gates(Options()))

    class Wrong(DynamicCache):
        def update(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
            keys, values = super().update(*args, **kwargs)
            return keys, values + 1

    caches: dict[str, Cache] = {"static": DynamicCache(), "dynamic": DynamicCache(), "pool": Wrong()}
    monkeypatch.setattr(cache, "_empty", lambda model: caches)
    assert [gate.name for gate in cache.gates(Options()) if not gate.green] == ["pool = dynamic"]


def test_a_second_question_is_another_one_each_time_and_spares_the_vision_tower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = subject(build("llava-512", **TINY), tokens=2)
    asked: list[tuple[int, ...]] = []
    running = ["nobody"]
    looks: list[str] = []
    explain = Explainer.explain_inputs

    def watched(self: Explainer, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        asked.append(tuple(inputs["input_ids"][0].tolist()))
        running.append("alone" if self.pool is None else "pooled")
        explanation = explain(self, inputs, *args, **kwargs)
        running.pop()
        return explanation

    monkeypatch.setattr(Explainer, "explain_inputs", watched)
    monkeypatch.setattr(weights, "OBSERVERS", (*weights.OBSERVERS, __name__))  # another hook ends the reuse
    found.model.model.vision_tower.register_forward_pre_hook(lambda *_: looks.append(running[-1]))
    group = cache.second_question(found, rounds=3)
    assert len(set(asked)) == len(asked) == 9  # one that the pool begins with, one each to warm up, three each
    # The first prompt of a model runs twice: under its own attention, too.
    assert (looks.count("pooled"), looks.count("alone"), looks.count("nobody")) == (2, 4, 4)
    assert len(cache.saved(group)) == 3


def test_what_is_saved_is_a_share_of_what_is_shared() -> None:
    rounds = {"alone": [3.0, 4.0], "pooled": [1.0, 1.0], "shared": [2.0, 4.0]}
    group = Group("second question", {"kind": "second question"}, dict.fromkeys(rounds, ""), rounds, "alone")
    assert cache.saved(group) == [1.0, 0.75]
    assert cache.conclude([group])["saved"]["median"] == 0.875


def test_the_manager_is_timed_call_by_call() -> None:
    group = cache.manager_calls(rounds=2)
    assert len(group.rounds) == 6
    assert all(0 < seconds < 1e-2 for rounds in group.rounds.values() for seconds in rounds)


def test_the_table_says_what_the_results_do() -> None:
    def timed(kind: str, floor: str | None = "static", **rounds: list[float]) -> Group:
        return Group(kind, {"kind": kind, "cached": 1024}, dict.fromkeys(rounds, ""), rounds, floor)

    caches = {"static": [2.0], "dynamic": [3.0], "pool": [1.0]}
    groups = [timed("decode step", **caches), timed("append", **caches), timed("manager", None, fork=[5e-7])]
    conclusions = {"saved": {"median": 0.93, "p20": 0.9, "p80": 0.95}}
    text = tables.cache(record(*groups) | {"conclusions": conclusions})
    assert "| | cached tokens: 1,024 |" in text
    assert "| decode step, pool over static | 0.50 |" in text
    assert "| decode step, dynamic over static | 1.50 |" in text
    assert "saves 93 % [90, 95]" in text
    assert "fork 0.5 µs" in text


def test_the_benchmark_runs_and_its_table_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHED", (32,))
    monkeypatch.setattr(cache, "build", lambda name, **_: build(name, **TINY))
    assert command.main(["cache", "--quick", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("*/cache.quick.json")
    assert "decode step, pool over static" in tables.cache(results.read(file, "cache"))
