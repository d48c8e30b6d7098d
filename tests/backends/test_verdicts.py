"""Which kernels a machine takes: tried in processes of their own, kept on the disk, forgotten when anything changes."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import judged_kernels
import pytest
import torch
import zoo
from torch.utils._pytree import tree_leaves

from dexar_fast import Explainer
from dexar_fast.backends import cpp, cuda, plan
from dexar_fast.backends.judging import child, deciding, scoring, slots, tails, timing, usual
from dexar_fast.backends.judging.trial import Compared
from dexar_fast.backends.verdicts import case as cases
from dexar_fast.backends.verdicts import kept, machine
from dexar_fast.backends.verdicts.case import Case, Verdict
from dexar_fast.cli.doctor import judged

CASE = Case("head_score", judged_kernels.KERNEL, "cpu", "bfloat16", (4, 2, 64, 16, 200))
ON_GPU = replace(CASE, kernel="triton", device="cuda:0")
TAKEN, REFUSED = Verdict(True, "fast", 2.0, "2026-11-29"), Verdict(False, "wrong", 0.0, "2026-11-29")
ABOUT_MACHINE = machine.machine, machine.key, plan._needs_verdict
SCRIPT = Path(judged_kernels.__file__)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's cache with nothing in it, and a process that knows nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(kept.ENVIRONMENT)
    monkeypatch.setattr(kept, "_known", {})
    monkeypatch.setattr(deciding, "_later", None)
    yield tmp_path / "dexar_fast" / "verdicts"
    forget_machine()


def forget_machine() -> None:
    for known in ABOUT_MACHINE:
        known.cache_clear()


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_known", {})


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card, made up."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(plan, "_no_triton", lambda: None)
    monkeypatch.setattr(machine, "_gpu", lambda device: {"card": "H200", "driver": "1"})
    forget_machine()


def tried(kind: str, monkeypatch: pytest.MonkeyPatch) -> Verdict | None:
    monkeypatch.setattr(deciding, "CHILD", [sys.executable, str(SCRIPT), kind])
    return deciding.tried(CASE)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("wrong", "wrong: off by .* times what rounding explains"),
        ("slow", "right, but faster in 0 of 10 rounds alone, 0.* times as fast"),
        ("crashing", "its process was ended by SIGSEGV"),
        ("raising", "it raises RuntimeError: no C compiler"),
        ("leaving", "its process ended with status 0 and without a verdict"),
        ("babbling", "its process ended with status 0 and without a verdict"),
    ],
)
def test_a_kernel_that_misbehaves_is_refused(kind: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = tried(kind, monkeypatch)
    assert verdict is not None and not verdict.taken and re.search(words, verdict.reason), verdict


def test_a_kernel_that_is_right_and_faster_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = tried("fast", monkeypatch)
    assert verdict is not None and verdict.taken and verdict.ratio > timing.MARGIN


@pytest.mark.parametrize(("kind", "refused"), [("hanging", True), ("stuck", False)])
def test_a_trial_that_hangs_is_ended_with_all_it_started(
    kind: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts against the kernel once that has begun."""
    monkeypatch.setattr(deciding, "LIMIT", 3.0)
    start = time.monotonic()
    verdict = tried(kind, monkeypatch)
    assert (verdict is not None) == refused
    assert verdict is None or verdict.reason.endswith("it did not end within 3 seconds")
    assert time.monotonic() - start < 60


def test_what_fails_before_the_kernel_is_not_held_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "CHILD", [sys.executable, str(SCRIPT), "unprepared"])
    told: list[Any] = []
    deciding.decide([CASE], lambda case, verdict: told.append((case, verdict)))
    assert told == [(CASE, None)]
    assert kept.found(CASE) is None and not list(kept.all_of("cpu"))


def test_a_verdict_is_kept_for_the_next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept.keep(CASE, TAKEN)
    another_process(monkeypatch)
    assert kept.found(CASE) == TAKEN and kept.takes(CASE)
    assert list(kept.all_of("cpu")) == [(CASE, TAKEN)]
    assert kept.found(replace(CASE, dtype="float16")) is None
    kept.keep(CASE, REFUSED)
    another_process(monkeypatch)
    assert not kept.takes(CASE)


def test_a_process_keeps_to_what_it_found_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept.found(CASE) is None
    known = dict(kept._known)
    kept.keep(CASE, TAKEN)
    monkeypatch.setattr(kept, "_known", known)  # another process has kept it
    assert not kept.takes(CASE) and kept.wanted() == [CASE]


@pytest.mark.parametrize("part", ["source", "torch", "card", "driver"])
def test_another_machine_or_code_has_no_verdict(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep(CASE, TAKEN)
    another_process(monkeypatch)
    of_now = machine.machine("cpu")
    monkeypatch.setattr(machine, "machine", lambda device: of_now | {part: "another"})
    machine.key.cache_clear()
    assert kept.found(CASE) is None and not list(kept.all_of("cpu"))


def test_the_source_is_that_of_kernels_and_bindings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = {path.name for path in machine._sources()}
    assert {"cpp.py", "eager.py", "scoring.py", "score_kernel.py", "tail.py"} <= names
    assert any(name.startswith("_C.") for name in names)
    file = tmp_path / "kernel.py"
    monkeypatch.setattr(machine, "_sources", lambda: iter([file]))
    found = set()
    for text in ("a", "b"):
        file.write_text(text)
        found.add(machine._source())
    assert len(found) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"verdict": {"taken": true}}',
     b'{"verdict": 1, "case": 1}',
     json.dumps({"verdict": asdict(TAKEN) | {"taken": "no"}, "case": asdict(CASE)}).encode(),
     json.dumps({"verdict": asdict(TAKEN) | {"more": 1}, "case": asdict(CASE)}).encode()],
    ids=range(10),
)  # fmt: skip
def test_a_file_that_holds_no_verdict_is_none(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep(CASE, TAKEN)
    (file,) = kept.folder("cpu").glob("*.json")
    file.write_bytes(content)
    another_process(monkeypatch)
    assert kept.found(CASE) is None and not list(kept.all_of("cpu"))


def test_where_nothing_can_be_written_the_process_still_knows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home that is read-only: `doctor --measure` shows what it found, and nobody measures in the background."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(deciding, "tried", lambda case: TAKEN)
    deciding.decide_new([CASE])
    assert not kept._known
    deciding.decide([CASE])
    assert kept.takes(CASE)
    another_process(monkeypatch)
    assert kept.found(CASE) is None and not list(kept.all_of("cpu"))


def test_two_processes_keep_whole_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads one or the other, never a part."""
    kept.keep(CASE, TAKEN)
    children = []
    for verdict in (TAKEN, REFUSED):
        child = os.fork()
        if not child:
            for _ in range(200):
                kept.keep(CASE, verdict)
            os._exit(0)
        children.append(child)
    for _ in range(200):
        another_process(monkeypatch)
        assert kept.found(CASE) in (TAKEN, REFUSED)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert [path.suffix for path in kept.folder("cpu").iterdir()] == [".json"]


def test_one_process_decides_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Case] = []
    monkeypatch.setattr(deciding, "tried", lambda case: asked.append(case) or TAKEN)
    with deciding.alone(wait=True):
        deciding.decide_new([CASE])
    assert not asked
    deciding.decide_new([CASE, replace(CASE, dtype="float16")])
    another_process(monkeypatch)
    deciding.decide_new([CASE])
    assert asked == [CASE, replace(CASE, dtype="float16")]  # the next finds it decided


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be started in the background; the CPU has instructions that no verdict is on."""
    commands: list[Any] = []
    monkeypatch.setattr(deciding, "_started", lambda command, *_, **more: commands.append((command, more)) or object())
    instructions = cpp.instruction_sets()
    monkeypatch.setattr(cpp, "instruction_sets", lambda: [*instructions, "amx"])
    return commands


def test_a_first_explanation_decides_nothing(started: list[Any]) -> None:
    """The second has it decided beside it, once."""
    model, inputs = zoo.build("llava", torch.bfloat16)
    explainer = Explainer(model)
    for times in range(3):
        explainer.explain_inputs(inputs, target_ids=[20, 30])
        assert len(started) == min(times, 1)
    ((*_, asked), more) = started[0]
    names = {each["kernel"] for each in json.loads(asked)}
    assert "amx" in names and not names & set(cpp.TRUSTED) and more == {"nice": 10}


@pytest.mark.parametrize("value", ["off", "kept"])
def test_the_environment_forbids_measuring(value: str, started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep(CASE, TAKEN)
    another_process(monkeypatch)
    monkeypatch.setenv(kept.ENVIRONMENT, value)
    assert kept.takes(CASE) == (value == "kept")
    kept.found(replace(CASE, dtype="float16"))
    deciding.decide_later()
    assert not started


@pytest.mark.usefixtures("gpu")
def test_auto_takes_what_a_verdict_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plan.ENVIRONMENT, raising=False)
    other = replace(ON_GPU, op="norm_vjp", sizes=(64, 16))
    choices = {choice.op: choice for choice in plan.plan(device="cuda")}
    assert choices["head_score"].backend == "torch" and "doctor --measure" in choices["head_score"].reason
    assert not plan.judged("auto", ON_GPU)
    kept.keep(ON_GPU, TAKEN)
    kept.keep(other, REFUSED)
    assert plan.judged("auto", ON_GPU) and not plan.judged("auto", other)
    assert not plan.judged("torch", ON_GPU) and not plan.judged("auto", ON_GPU, plain=False)
    choices = {choice.op: choice for choice in plan.plan(device="cuda")}
    assert choices["head_score"].backend == choices["aggregate"].backend == "triton"
    assert choices["head_score"].reason == "at 1 of 1 sizes, by verdict; else torch"
    assert choices["layer_tail_vjp"].backend == "torch"
    assert choices["layer_tail_vjp"].reason == "none of 1 verdicts takes a kernel"
    assert all(choice.backend == "torch" for choice in plan.plan("torch", device="cuda"))
    monkeypatch.setenv(plan.ENVIRONMENT, "torch")
    assert not plan.judged("auto", ON_GPU)


def test_sizes_are_rounded_up_to_those_measured() -> None:
    u, value = torch.empty(65, 28, 128, dtype=torch.bfloat16), torch.empty(4, 2049, 128, dtype=torch.bfloat16)
    assert cases.scoring_case("amx", u, value) == Case("head_score", "amx", "cpu", "bfloat16", (28, 4, 128, 512, 8192))
    assert cases.scoring_case("amx", u[:1], value[:, :5]).sizes == (28, 4, 128, 16, 2048)
    assert cases.rows_case("norm_vjp", "triton", torch.empty(9999, 7)).sizes == (7, 512)
    assert cases.append_case("triton", torch.empty(1, 4, 17, 8)).sizes == (4, 8, 64)
    assert cases.copy_case("cuda", [torch.empty(1, 4, 17, 8)] * 6).sizes == (3, 4, 8)


TRIALS = {
    "scores": lambda: scoring.trial(replace(CASE, kernel="avx2")),
    "scores of one head": lambda: scoring.trial(replace(CASE, dtype="float32", sizes=(1, 1, 60, 16, 100))),
    "norms": lambda: tails.norms(Case("norm_vjp", "cpp", "cpu", "bfloat16", (200, 16))),
    "norms in float32": lambda: tails.norms(Case("norm_vjp", "cpp", "cpu", "float32", (77, 16))),
    "gates": lambda: tails.gates(Case("gated_vjp", "cpp", "cpu", "bfloat16", (200, 16))),
    "appends": lambda: slots.appends(Case("kv_append", "torch", "cpu", "float16", (2, 8, 16))),
}


@pytest.mark.parametrize("name", TRIALS)
def test_a_right_kernel_passes_and_is_tried_against_the_same_result(name: str) -> None:
    trial = TRIALS[name]()
    assert 0 <= trial.worst() <= 1
    results = ([x for x in tree_leaves(call()) if x is not None] for call in (trial.kernel, trial.baseline))
    for some, other in zip(*results, strict=True):
        torch.testing.assert_close(some, other.to(some.dtype), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("off", "slack", "error"),
    [
        (0.0, None, 0),
        (1e-9, None, torch.inf),
        (0.5, 1.0, 0.5),
        (torch.nan, 1.0, torch.inf),
        (torch.inf, 1.0, torch.inf),
    ],
)
def test_an_error_is_a_part_of_what_is_allowed(off: float, slack: float | None, error: float) -> None:
    wanted = torch.tensor([1.0, torch.nan], dtype=torch.float64)
    found = wanted + torch.tensor([off, 0.0])
    assert Compared(found, wanted, None if slack is None else torch.full((2,), slack)).error == pytest.approx(error)
    assert Compared(torch.ones(3), torch.ones(2), None).error == torch.inf
    assert Compared(torch.ones(1), torch.tensor([torch.nan]), torch.ones(1)).error == torch.inf


@pytest.mark.parametrize("broken", [0, 1, 2, 3])
def test_each_result_of_a_score_is_looked_at(broken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = scoring._by

    def wrong(head_score: Any, given: Any) -> Any:
        found = right(head_score, given)
        found[broken][-1, -1] += 0.05 * found[broken].nan_to_num().abs().max()
        return found

    monkeypatch.setattr(scoring, "_by", wrong)
    assert TRIALS["scores"]().worst() > 1


def test_a_race_needs_most_rounds_and_a_margin() -> None:
    assert timing.Race(8, 1.1).is_faster
    assert not timing.Race(7, 2.0).is_faster and not timing.Race(10, 1.09).is_faster


def test_the_doctor_shows_verdicts_and_makes_them_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usual, "devices", lambda: ["cpu"])
    monkeypatch.setattr(usual, "usual", lambda device: [CASE])
    (missing,) = judged.verdicts()
    assert missing.value == "1 kernels not judged" and missing.note == "dexar-fast doctor --measure"
    wanted = replace(CASE, dtype="float16")
    kept.found(wanted)
    answers = {CASE: TAKEN, wanted: None}
    monkeypatch.setattr(deciding, "tried", answers.__getitem__)
    told: list[str] = []
    judged.judge(told.append)
    assert [line.rpartition(": ")[2] for line in told] == ["fast", "its trial could not begin"]
    (found,) = judged.verdicts()
    assert found.name == "head_score 4x2x64x16x200 bfloat16"
    assert (found.value, found.note) == ("portable: taken", "fast, 2026-11-29")


def test_the_usual_sizes_can_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "obstacle", lambda: None)
    for case in (*usual.usual("cuda:0"), *usual.usual("cpu")):
        assert case.op in child.TRIALS and all(size > 0 for size in case.sizes)
        assert case.dtype == "bfloat16"
