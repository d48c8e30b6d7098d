"""The benchmarks' machinery: fits, load, files, comparison, tables, gates, rivals, the command. No speeds."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench_records import GREEN, QUIET, RED, record
from scipy.stats import linregress
from scipy.stats import t as student

from bench import (
    captum_ablation,
    command,
    compare,
    gates,
    long_answer,
    machine,
    memory,
    micro,
    plots,
    results,
    rival_methods,
    rivals,
    scaling,
    tables,
)
from bench.fits import growth
from bench.gates import RedGate
from bench.gpu import suite as gpu_suite
from bench.groups import Benchmark, Group, table, timed
from bench.load import Foreign, Load, wait_for_quiet
from bench.options import Options
from bench.subjects import Subject, subject
from bench.summaries import percentile, summary
from bench.timing import Job, interleaved
from dexar_fast import Explainer
from dexar_fast.profile.shapes import build

SIZES = [16, 32, 64, 128, 256, 512, 1024, 2048]


@pytest.fixture
def small() -> Subject:
    return subject(build("llava-512", layers=2, grid=2, width=64), tokens=3)


def group(name: str = "one", floor: str | None = "forward", **rounds: list[float]) -> Group:
    jobs = rounds or {"forward": [1.0, 1.1, 1.2], "explain": [1.3, 1.4, 1.5]}
    return Group(name, {"kind": "given", "layers": 4, "tokens": 16}, dict.fromkeys(jobs, "a job"), jobs, floor)


# Fits


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5, 2.0])
def test_the_exponent_of_a_power_law_is_recovered(exponent: float) -> None:
    found = growth(SIZES, [0.3 * x**exponent for x in SIZES])
    assert (found.exponent, found.low, found.high) == pytest.approx((exponent,) * 3, abs=1e-6)
    assert (found.first, found.last) == (SIZES[-5], SIZES[-1])


def test_small_sizes_do_not_count() -> None:
    costs = [100.0] * (len(SIZES) - 5) + [2.0 * x for x in SIZES[-5:]]
    assert growth(SIZES, costs).exponent == pytest.approx(1)


def test_the_interval_is_that_of_a_linear_regression() -> None:
    generator = np.random.default_rng(0)
    costs = [0.02 * x * (1 + 0.05 * generator.standard_normal()) for x in SIZES]
    found, expected = growth(SIZES, costs), linregress(np.log(SIZES[-5:]), np.log(costs[-5:]))
    half = expected.stderr * student.ppf(0.975, 3)
    assert found.exponent == pytest.approx(expected.slope)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=1e-3)


def test_too_few_points_have_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 5"):
        growth([1, 2, 3, 4], [1, 2, 3, 4])


def test_a_cost_that_is_not_positive_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="positive"):
        growth(SIZES, [0.0, *SIZES[1:]])


# Load


def test_a_busy_machine_is_waited_for() -> None:
    loads, slept = iter([2.0, 1.0, 0.2]), []
    found = wait_for_quiet(60, lambda: next(loads), slept.append)
    assert (found.before, found.waited, found.too_high) == (0.2, 10.0, False)
    assert slept == [5.0, 5.0]


def test_waiting_ends_and_says_so() -> None:
    found = wait_for_quiet(12, lambda: 1.5, lambda seconds: None)
    assert (found.before, found.waited, found.too_high) == (1.5, 15.0, True)
    assert wait_for_quiet(0, lambda: 1.5, lambda seconds: pytest.fail("slept")).too_high


def test_what_others_use_meanwhile_is_what_is_not_ours() -> None:
    busy, own, clock = iter([100.0, 109.0]), iter([10.0, 14.0]), iter([0.0, 10.0])
    foreign = Foreign(lambda: next(busy), lambda: next(own), lambda: next(clock))
    assert foreign.cores() == pytest.approx(0.5)
    assert Foreign(lambda: None).cores() is None


# Rounds


def test_jobs_take_turns_after_a_warm_up_and_slow_ones_run_less_often() -> None:
    order: list[str] = []
    jobs = [Job("a", "", lambda: order.append("a")), Job("b", "", lambda: order.append("b"))]
    slow = Job("slow", "", lambda: order.append("slow"), rounds=1)
    found = interleaved([*jobs, slow], rounds=2, timer=lambda run: run() or 1.0)
    assert order == ["a", "b", "a", "b", "slow", "b", "a"]
    assert found == {"a": [1.0, 1.0], "b": [1.0, 1.0], "slow": [1.0]}


def test_percentiles_are_numpys() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    for share in (0, 0.2, 0.5, 0.8, 1):
        assert percentile(values, share) == pytest.approx(np.quantile(values, share))
    found = summary(values)
    assert (found["min"], found["median"], found["rounds"]) == (1.0, 2.8, values)


def test_ratios_are_taken_within_rounds() -> None:
    found = group(forward=[1.0, 2.0, 4.0], explain=[2.0, 2.0], slow=[]).ratios()
    assert found == {"explain/forward": [2.0, 1.0]}


def test_a_group_is_printed_with_its_ratio() -> None:
    text = table(group(forward=[0.001, 0.001], explain=[0.002, 0.002]))
    assert "2.000 x forward [2.000, 2.000]" in text
    assert "ms" in text


# Files


def test_a_file_holds_everything_about_its_figures(tmp_path: Path) -> None:
    path = tmp_path / "machine" / "explain.json"
    results.write(record(group()), path)
    found = results.read(path)
    assert found.keys() == set(results.KEYS)
    assert found["machine"]["cores"] >= 1
    assert found["versions"]["torch"] == torch.__version__
    assert found["command"].startswith("python -m bench")
    assert not found["loaded"]
    (stored,) = found["groups"]
    assert stored["jobs"]["explain"] == {"about": "a job"} | summary([1.3, 1.4, 1.5])
    assert [p.name for p in path.parent.iterdir()] == ["explain.json"]


@pytest.mark.parametrize(("load", "foreign"), [(Load(0.9, 60.0), 0.0), (QUIET, 0.7)])
def test_a_machine_that_was_not_quiet_is_on_record(load: Load, foreign: float) -> None:
    assert record(group(), load=load, foreign=foreign)["loaded"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    results.write({"x": 1}, path)
    with pytest.raises(ValueError):
        results.write({"x": float("nan")}, path)
    with pytest.raises(UnicodeEncodeError):
        results.write_text("half of it \ud800", path)
    assert json.loads(path.read_text()) == {"x": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["[]", '{"schema": 0}', '{"schema": 1}', "no JSON"])
def test_what_is_no_file_of_results_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError):
        results.read(path)


def test_machines_have_short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_model", lambda: "Intel(R) Xeon(R) Gold 6430 CPU @ 2.10GHz")
    monkeypatch.setattr(machine, "cores", lambda: 4)
    assert machine.slug() == "xeon-gold-6430-4core"
    assert machine.slug("NVIDIA H200 141GB") == "h200"
    monkeypatch.setattr(machine, "cpu_model", lambda: "AMD EPYC 7763 64-Core Processor")
    assert machine.slug() == "epyc-7763-4core"
    monkeypatch.setattr(machine, "cpu_model", lambda: "Intel(R) Xeon(R) Processor")
    assert machine.slug() == "xeon-4core"


# Comparison


def test_compare_flags_what_moved_beyond_the_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    steady = [1.0, 1.01, 1.02, 1.03]
    results.write(record(group(forward=steady, explain=[x * 1.5 for x in steady], other=[1.0, 3.0, 1.0, 3.0])), before)
    results.write(record(group(forward=steady, explain=[x * 1.2 for x in steady], other=[1.2, 3.3, 1.2, 3.3])), after)
    found = {change.name: change for change in compare.changes(results.read(before), results.read(after))}
    assert found["one: explain"].verdict == "less"
    assert found["one: explain"].ratio == pytest.approx(0.8)
    assert found["one: forward"].verdict == found["one: other"].verdict == ""
    assert found["one: explain/forward"].verdict == "less"
    assert command.main(["compare", str(before), str(after)]) == 0
    printed = capsys.readouterr().out
    assert "2 of 5 moved" in printed
    backwards = {change.name: change for change in compare.changes(results.read(after), results.read(before))}
    assert backwards["one: explain"].verdict == "more"


def test_compare_of_two_machines_looks_at_ratios_alone() -> None:
    before, after = record(group(), group("gone")), record(group(), quick=True, foreign=1.0)
    after["machine"] = after["machine"] | {"cpu": "another"}
    assert [change.name for change in compare.changes(before, after)] == ["one: explain/forward"]
    notes = " ".join(compare.warnings(before, after))
    assert "the machines differ" in notes
    assert "AFTER was measured on a machine that was not quiet" in notes
    assert "AFTER is a quick run" in notes
    assert list(compare.warnings(before, before)) == []


def test_compare_says_which_file_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["compare", str(tmp_path / "none.json"), str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().out


def test_results_of_another_benchmark_or_damaged_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = record(group(forward=[1.0], explain=[1.25]))
    path, other, damaged, broken = (tmp_path / f"{name}.json" for name in ("a", "other", "damaged", "broken"))
    results.write(found, path)
    results.write(found | {"benchmark": "memory"}, other)
    results.write(found | {"machine": None}, damaged)
    broken.write_text("[1")
    for file, message in (
        (other, "not of explain"),
        (damaged, "damaged at machine"),
        (broken, "broken.json is no JSON"),
    ):
        assert command.main(["compare", str(path), str(file)]) == 2
        assert message in capsys.readouterr().out
    assert command.main(["plot", "--results", str(path), "--out", str(tmp_path / "a.png")]) == 2
    assert "not of scaling" in capsys.readouterr().out


def test_compare_has_no_ratio_to_nothing() -> None:
    found = record(group(forward=[1.0], explain=[1.25]))
    jobs = {"beyond": dict.fromkeys(("min", "median", "p20", "p80"), 0.0)}
    found = found | {"groups": [{"name": "T=4", "jobs": jobs, "ratios": {}}]}
    assert list(compare.changes(found, found)) == []


def test_a_commit_with_changes_says_so() -> None:
    assert machine.short("0123456789abcdef") == "0123456789ab"
    assert machine.short("0123456789abcdef-dirty") == "0123456789ab with uncommitted changes"


# Gates and rivals


def test_the_rivals_compute_what_the_explanation_does() -> None:
    found = gates.same_arrays(Options())
    assert len(found) == 3
    assert all(gate.green for gate in found)


def test_the_gates_compare_maps_that_are_not_blank() -> None:
    arrays = rival_methods.cached(gates.checked(Options()))
    assert all(bool((arrays[key] > 0).any()) for key in gates.COMPARED)


def test_a_wrong_array_turns_its_gate_red(small: Subject) -> None:
    explanation = Explainer(small.model).explain_inputs(small.inputs, target_ids=small.targets)
    arrays = rival_methods.cached(small)
    assert gates.agreement("", arrays, explanation, 1e-3).green
    for key in gates.COMPARED:
        for wrong in (arrays[key] + 0.1, arrays[key][1:], arrays[key] * float("nan")):
            assert not gates.agreement("", arrays | {key: wrong}, explanation, 1e-3).green


def test_rivals_leave_the_model_as_it_was(small: Subject) -> None:
    config = small.model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    for rival in (rival_methods.authors, rival_methods.cached, rival_methods.full_length):
        rival(small)
        assert config._attn_implementation == before
        assert not any(layer._forward_hooks for layer in small.model.model.language_model.layers)


def test_captum_attributes_every_token_to_every_patch(small: Subject) -> None:
    pytest.importorskip("captum")
    found = captum_ablation.attribution(small)()
    assert found.shape == (3, 4)
    assert found.isfinite().all()
    assert bool((found != 0).any())


def test_a_missing_captum_is_a_line_in_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "missing", lambda: "not here")
    found = subject(build("llava-512", layers=1, grid=2, width=64), tokens=rivals.CAPTUM_TOKENS)
    measured = rivals.given_answer(found, rounds=2, slow_rounds=1)
    assert measured.notes == {"captum": "skipped: not here"}
    assert measured.rounds.keys() == {"forward", "explain", "full_length", "cached", "authors"}


def test_why_captum_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError("no such package")

    monkeypatch.setattr(captum_ablation, "import_module", absent)
    assert "no such package" in str(captum_ablation.missing())
    monkeypatch.setattr(captum_ablation, "import_module", lambda name: object())
    assert "0.9 has" in str(captum_ablation.missing())


# The benchmarks


def test_micro_jobs_run_in_every_dtype() -> None:
    for case in micro.cases(keys=(micro.VISUAL + 100,)):
        measured = micro.measured(case, rounds=1)
        assert measured.floor == case.jobs[0].name
        assert len(measured.rounds) == len(case.jobs)


def test_memory_beyond_what_is_kept_is_the_growth_less_what_is_known() -> None:
    short, long = (
        group(floor=None, peak=[peak, peak + 1], kept=[kept]) for peak, kept in ((100.0, 10.0), (180.0, 50.0))
    )
    assert memory.conclude([short, long]) == {"peak_grows_by": 80.0, "kept_grows_by": 40.0, "beyond": 40.0}


def test_memory_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    resident, kept = memory._measured(4)
    assert resident > 2**26
    assert kept > 2 * 4 * memory.LAYERS * 512 * 624
    monkeypatch.setattr(memory.sys, "executable", "false")
    with pytest.raises(RuntimeError, match=r"-m bench.memory 4 failed"):
        memory._measured(4)


def synthetic() -> list[Group]:
    """Every axis of scaling, times and memory linear in the size."""
    found = []
    for axis, sizes in scaling.AXES.items():
        for size in sizes:
            parameters = {"axis": axis, "size": size}
            times = {"forward": [0.1 * size], "explain": [0.2 * size]}
            found.append(Group(f"time {axis} {size}", parameters, dict.fromkeys(times, ""), times, "forward"))
            held = {"explain": [1e3 * size]}
            found.append(Group(f"memory {axis} {size}", parameters, dict.fromkeys(held, ""), held, unit="B"))
    return found


def test_scaling_concludes_with_an_exponent_for_every_axis() -> None:
    found = scaling.conclude(synthetic())
    assert found.keys() == {"T", "P", "N", "L"}
    for growths in found.values():
        assert growths.keys() == {"time", "forward", "memory"}
        assert growths["time"]["exponent"] == pytest.approx(1)
        assert growths["memory"]["exponent"] == pytest.approx(1)


def test_every_axis_of_scaling_varies_what_it_says() -> None:
    base = scaling.at("T", 16)
    assert (len(base.targets), base.prompt, len(base.visual)) == (16, 188, 144)
    assert scaling.at("P", 300).prompt == 300
    assert len(scaling.at("N", 64).visual) == 64
    assert scaling.at("L", 3).model.config.text_config.num_hidden_layers == 3


def test_the_scaling_picture_has_a_panel_for_every_axis_and_unit(tmp_path: Path) -> None:
    benchmark = Benchmark("scaling", "", lambda o: [GREEN], lambda o: iter(()), scaling.conclude)
    found = results.record(benchmark, Options(), [GREEN], synthetic(), QUIET, 0.0, 1.0, "2026-11-21")
    figure = plots.scaling(found)
    assert len(figure.axes) == 8
    assert all(len(panel.lines) == (2 if n < 4 else 1) for n, panel in enumerate(figure.axes))
    results.write(found, tmp_path / "scaling.json")
    out = tmp_path / "pictures" / "scaling.png"
    assert command.main(["plot", "--results", str(tmp_path / "scaling.json"), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert command.main(["plot", "--results", str(tmp_path / "none.json"), "--out", str(out)]) == 2
    assert "| T, 512 to 8,192 | 1.00 [" in tables.scaling(found)


def test_the_tables_are_written_from_the_results(tmp_path: Path) -> None:
    results.write(record(group(forward=[1.0], explain=[1.25])), tmp_path / "explain.json")
    readme = tmp_path / "README.md"
    kept = "<!-- bench:rivals -->\nas it was\n<!-- /bench:rivals -->\n"
    readme.write_text(f"# Title\n<!-- bench:explain -->\nold\n<!-- /bench:explain -->\n{kept}end\n")
    assert command.main(["tables", "--results", str(tmp_path), "--pages", str(readme)]) == 2
    text = readme.read_text()
    assert "| given answer, 4 layers | 1.25 |" in text
    assert "old" not in text
    assert text.endswith(f"{kept}end\n")
    assert "`python -m bench" in text
    again = tables.filled(text, tmp_path)[0]
    assert again == text


def test_the_tables_of_a_gpu_come_from_its_own_folder(tmp_path: Path) -> None:
    found = record(group(floor=None, beyond=[3.0 * 2**20]))
    results.write(found | {"machine": found["machine"] | {"gpu": "NVIDIA H200"}}, tmp_path / "h200" / "gpu-memory.json")
    marked = "<!-- bench:gpu-memory -->\n<!-- /bench:gpu-memory -->"
    text, missing = tables.filled(marked, tmp_path / "xeon")
    assert missing == []
    assert "| one | 3 |" in text
    assert "\nNVIDIA H200, torch" in text


def test_every_table_is_made_of_its_own_results() -> None:
    given, generated = group(authors=[9.0], forward=[1.0, 1.0]), group(floor="dynamic", dynamic=[2.0], static=[1.0])
    assert "| authors, over forward | 9.00 |" in tables.rivals(record(given, generated))
    assert "| static, over dynamic | 0.50 |" in tables.rivals(record(given, generated))
    assert "| one | explain | forward | 1.27 [1.26, 1.29] |" in tables.ratios(record(group()))
    short, long = (group(floor=None, peak=[x * 2**20], kept=[x * 2**18]) for x in (100.0, 180.0))
    conclusions = {"conclusions": memory.conclude([short, long])}
    assert "20 MiB of KV cache and results, and by 60 MiB" in tables.memory(record(short, long) | conclusions)


def test_a_long_answer_is_told_by_stretches() -> None:
    """One token of 1 ms alone and 3 ms streamed; 64 tokens hold 128 KiB of keys and values."""
    rows = {ms: [(64 * i, ms * 64e-3 * i, i * 2**18) for i in range(1, 17)] for ms in (1, 3)}
    parts = list(long_answer.stretches(rows[1], rows[3]))
    killed, again = group(floor=None, read=[0.5]), group(floor=None, explain=[2e-3])
    notes = {"handed_over": 512, "read_again": 448}, {"difference_to_stream": 3e-7}
    killed, again = (replace(each, notes=note) for each, note in zip((killed, again), notes, strict=True))
    assert [len(part.rounds["stream"]) for part in parts] == [2] * 7 + [1]
    conclusions = long_answer.conclude([*parts, killed, again])
    assert conclusions["stream_over_generate"] == pytest.approx(3)
    assert conclusions["ms_per_token_grows_by"] == pytest.approx({"generate": 0, "stream": 0}, abs=1e-9)
    assert conclusions["beyond_kv_cache"] == 15 * 2**17
    text = tables.long(record(*parts, killed, again))
    assert "| tokens 64 to 192 | 1.00 ms | 3.00 ms | 3.00 [3.00, 3.00] | 0 MiB |" in text
    assert "after 512 tokens had been handed over, a run left 448 to read, in 0.5 s" in text
    assert "2.00 ms a token and differed by 3e-07" in text


def test_the_pages_have_places_for_tables_that_there_are_and_no_other() -> None:
    places = 0
    for text in (page.read_text() for page in tables.PAGES):
        for name in tables.TABLES:
            assert text.count(f"<!-- bench:{name} -->") == text.count(f"<!-- /bench:{name} -->") <= 1
        assert set(re.findall(r"<!-- bench:(\S+) -->", text)) <= set(tables.TABLES)
        places += text.count("<!-- bench:")
    assert places >= 3


# The command


def test_a_red_gate_writes_no_figure(tmp_path: Path) -> None:
    def measuring(options: Options) -> Iterator[Group]:
        pytest.fail("measured behind a red gate")
        yield

    benchmark = Benchmark("never", "", lambda options: [GREEN, RED], measuring)
    with pytest.raises(RedGate, match="wrong"):
        command.run(benchmark, Options(), QUIET, tmp_path)
    with pytest.raises(RedGate, match="no gate"):
        command.run(Benchmark("never", "", lambda options: [], measuring), Options(), QUIET, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single benchmark that takes no time."""

    def groups(options: Options) -> Iterator[Group]:
        yield timed("one", {}, [Job("a", "", int), Job("b", "", int)], rounds=options.rounds_of(4), floor="a")

    monkeypatch.setattr(command, "CPU", {"one": Benchmark("one", "about", lambda options: [GREEN], groups)})


def test_what_is_killed_leaves_the_groups_that_it_measured(tmp_path: Path) -> None:
    def measuring(options: Options) -> Iterator[Group]:
        yield group("first")
        raise KeyboardInterrupt

    benchmark = Benchmark("half", "", lambda options: [GREEN], measuring, lambda groups: pytest.fail("concluded"))
    with pytest.raises(KeyboardInterrupt):
        command.run(benchmark, Options(), QUIET, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["half.part.json"]
    assert [each["name"] for each in results.read(tmp_path / "half.part.json")["groups"]] == ["first"]
    command.run(replace(benchmark, groups=lambda _: iter([group()]), conclude=lambda _: {}), Options(), QUIET, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["half.json"]


def test_the_command_writes_a_file_of_results(one: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "wait_for_quiet", lambda patience: QUIET)
    assert command.main(["--rounds", "3", "--out", str(tmp_path)]) == 0
    found = results.read(tmp_path / machine.slug() / "one.json")
    assert len(found["groups"][0]["jobs"]["a"]["rounds"]) == 3
    assert found["load"]["before"] == 0.1
    assert command.main(["one", "--quick", "--out", str(tmp_path)]) == 0
    assert results.read(tmp_path / machine.slug() / "one.quick.json")["quick"]


def test_a_busy_machine_is_refused_unless_forced(one: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "wait_for_quiet", lambda patience: Load(1.5, patience))
    assert command.main(["--out", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []
    assert command.main(["--force", "--out", str(tmp_path)]) == 0
    found = results.read(tmp_path / machine.slug() / "one.json")
    assert found["loaded"]
    assert found["load"] == found["load"] | {"before": 1.5, "waited_s": 0}


def test_a_load_that_is_told_is_not_measured(one: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "wait_for_quiet", lambda patience: pytest.fail("measured"))
    assert command.main(["--load", "0.05", "--out", str(tmp_path)]) == 0
    assert results.read(tmp_path / machine.slug() / "one.json")["load"]["before"] == 0.05
    assert command.main(["--load", "1.5", "--out", str(tmp_path)]) == 2


@pytest.mark.parametrize(
    "arguments", [["nonesuch"], ["--rounds", "0"], ["--patience", "nan"], ["explain", "--gpu", "--quick"]]
)
def test_arguments_that_make_no_sense_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main(arguments)
    assert refused.value.code == 2
    assert "error" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_before_measuring(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--quick", "explain", "--out", "/proc/no"]) == 2
    assert "cannot write results" in capsys.readouterr().out


def test_the_gpu_suite_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--gpu"]) == 2


@pytest.mark.parametrize("suite", gpu_suite.BENCHMARKS, ids=lambda suite: suite.name)
def test_the_gpu_suites_code_runs_on_tiny_models(suite: Benchmark, tmp_path: Path) -> None:
    path = command.run(suite, Options(quick=True, rounds=1), QUIET, tmp_path)
    found = results.read(path)
    assert found["groups"]
    assert all(group["jobs"] for group in found["groups"])


def test_an_explanation_behind_compiled_generation_is_held_against_it() -> None:
    found = gpu_suite.added_over_static([group(floor="dynamic", dynamic=[4.0], static=[2.0], explain=[4.5])])
    assert found == {"one": 1.25}
