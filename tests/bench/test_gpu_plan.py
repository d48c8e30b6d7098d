"""The plan of a visit to a GPU, without one: how its steps end, what it leaves, and its commands at tiny sizes."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kernel_cases import CASES, name
from kv_cases import CASES as KV_CASES
from kv_cases import COPIES
from kv_cases import name as kv_name
from tail_cases import GATED_CASES, NORM_CASES
from tail_cases import name as tail_name

from bench.gpu import about, plan, running, steps
from bench.gpu.facts.profiled import summed
from bench.gpu.running import FAILED, LATE, OUT, OVER, PASSED, Outcome, Step

ROOT = Path(__file__).parents[2]
H200 = {"capability": [9, 0], "machine": {"cores": 16}, "load": 0.12, "cards": 1}
ENOUGH = 60.0  # seconds


def python(code: str, limit: float = ENOUGH, **more: str) -> Step:
    return Step("one", (sys.executable, "-S", "-c", code), limit, **more)


def ended(step: Step, folder: Path, left: float = ENOUGH) -> Outcome:
    return running.run(step, left, folder / "log.txt")


def test_a_step_that_ends_says_its_last_line(tmp_path: Path) -> None:
    found = ended(python("print('first'); print('5 passed')"), tmp_path)
    assert (found.status, found.note, found.well) == (PASSED, "5 passed", True)
    assert "first\n5 passed\n" in (tmp_path / "log.txt").read_text()


def test_a_step_that_fails_says_why(tmp_path: Path) -> None:
    found = ended(python("import sys; print('no such file', file=sys.stderr); sys.exit(3)"), tmp_path)
    assert (found.status, found.note, found.well) == (FAILED, "status 3: no such file", False)
    found = ended(python("print('dexar_fast._C is left out: no compiler')", wrong="is left out.*"), tmp_path)
    assert (found.status, found.note) == (FAILED, "is left out: no compiler")


def test_what_a_machine_does_not_have_or_allow_is_said_and_is_no_failure(tmp_path: Path) -> None:
    absent = Step("sanitizer", ("nonesuch-sanitizer",), ENOUGH, needs="nonesuch-sanitizer")
    found = ended(absent, tmp_path)
    assert (found.status, found.note, found.well) == (OUT, "there is no nonesuch-sanitizer here", True)
    found = ended(
        python("print('Device not supported'); raise SystemExit(1)", refused="Device not supported"), tmp_path
    )
    assert (found.status, found.note, found.well) == (OUT, "not possible here: Device not supported", True)


def test_a_step_over_its_time_ends_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "GRACE", 0.2)
    monkeypatch.setattr(running, "LEAST", 0.1)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", {stubborn!r}])
print(child.pid, flush=True)
child.wait()
"""
    found = ended(python(code, limit=1.0), tmp_path)
    assert found.status == OVER
    assert found.note.startswith("ended after 1 s")
    child = int(found.note.split()[-1])
    while Path(f"/proc/{child}/stat").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.sleep(0.01) is None  # it was sent SIGKILL


def test_a_step_gets_no_more_time_than_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(python("print(1)"), tmp_path, left=running.GRACE + running.LEAST - 0.1) == Outcome("one", LATE)
    assert not (tmp_path / "log.txt").exists()
    monkeypatch.setattr(running, "LEAST", 0.1)
    found = ended(python("import time; time.sleep(60)"), tmp_path, left=running.GRACE + 0.3)
    assert (found.status, found.seconds < 10) == (OVER, True)


def test_of_what_a_step_says_the_end_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "KEPT", 100)
    ended(python("print('before')"), tmp_path)
    ended(python("print('x' * 1000); print('the end')"), tmp_path)
    said = (tmp_path / "log.txt").read_text()
    assert "before" in said
    assert said.endswith("x\nthe end\n")
    assert len(said) < 500


def test_what_fails_does_not_stop_what_comes_behind_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = [python("raise SystemExit(1)"), python("print('well')"), python("import time; time.sleep(60)", 0.1)]
    (tmp_path / "log.txt").write_text("of another visit")
    assert plan.run(planned, time.monotonic() + ENOUGH, tmp_path, {"commit": "unknown"}) == 1
    found = json.loads((tmp_path / "summary.json").read_text())
    assert [step["status"] for step in found["steps"]] == [FAILED, PASSED, LATE]
    assert found["commit"] == "unknown"
    assert "of another visit" not in (tmp_path / "log.txt").read_text()
    assert "well" in capsys.readouterr().out
    assert plan.run(planned[1:2], time.monotonic() + ENOUGH, tmp_path, {}) == 0


def test_steps_are_bounded_and_build_for_the_card_alone(tmp_path: Path) -> None:
    found = {step.name: step for step in steps.steps(H200, tmp_path, rehearsal=False)}
    assert list(found) == ["build", "tests", "sanitizer", "verdicts", "facts", *steps.SECONDS]
    assert found["build"].environment == {"TORCH_CUDA_ARCH_LIST": "9.0a"}
    assert steps._build([8, 0]).environment == {"TORCH_CUDA_ARCH_LIST": "8.0"}
    assert found["sanitizer"].environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"
    assert all(0 < step.limit < plan.TOTAL for step in found.values())
    assert plan.TOTAL + running.GRACE <= 9 * 60
    assert found["gpu-explain"].command[-4:] == ("--load", "0.12", "--out", str(tmp_path))


def test_what_the_sanitizer_looks_at_exists() -> None:
    ids = {*map(name, CASES), *map(tail_name, [*NORM_CASES, *GATED_CASES]), *map(kv_name, KV_CASES)}
    ids |= {f"{copies}-{backend}" for copies in COPIES for backend in ("triton", "cuda")}
    source = (ROOT / steps.TESTS).read_text()
    assert len(set(steps.CHECKED)) == 8
    for case in steps.CHECKED:
        test, _, of = case.partition("[")
        assert f"def {test}(" in source
        assert of.removesuffix("]") in ids


def test_the_profilers_events_are_summed() -> None:
    events = [("cudaLaunchKernel", False, 9.0), ("gemm", True, 30.0), ("cudaStreamSynchronize", False, 5.0)]
    events += [("Memcpy HtoD (Pageable -> Device)", True, 2.0), ("Memcpy DtoH (Device -> Pinned)", True, 1.0)]
    events += [("Memset (Device)", True, 1.0), ("aten::mm", False, 40.0)]
    assert summed(events) == {
        "launch": 1,
        "wait": 1,
        "copy to the device": 1,
        "copy from the device": 1,
        "pageable copy": 1,
        "device_seconds": pytest.approx(34e-6),
    }


def test_there_must_be_a_gpu_and_such_a_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plan.signal, "signal", lambda *_: None)
    monkeypatch.setattr(about, "asked", lambda: H200 | {"cards": 0})
    assert plan.main(["--out", str(tmp_path / "none")]) == plan.REFUSED
    monkeypatch.setattr(about, "asked", lambda: H200)
    assert plan.main(["nonesuch", "--out", str(tmp_path / "none")]) == plan.REFUSED
    assert not (tmp_path / "none").exists()


def test_facts_are_found_out_on_a_device_that_counts(tmp_path: Path) -> None:
    step = steps._facts(tmp_path, rehearsal=True)
    assert ended(step, tmp_path, 300.0).status == PASSED, (tmp_path / "log.txt").read_text()
    facts = {fact: told["found"] for fact, told in json.loads((tmp_path / "facts.json").read_text()).items()}
    attention = facts["attention at new lengths"]
    assert attention.pop("aligned flash attention serves") is True
    assert [len(found["first"]) for found in attention.values()] == [20] * 5
    assert len({keys for found in attention.values() for keys in found["keys"]}) == 100
    counted = facts["launches and times"]["llava-1.5-7b"]
    given = next(found for work, found in counted.items() if work.startswith("given answer"))
    assert given["launch"] > counted["plain forward"]["launch"] > 0


@pytest.mark.slow
def test_the_whole_plan_is_rehearsed_and_leaves_few_files(tmp_path: Path) -> None:
    known = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = ["bash", "bench/gpu.sh", "--rehearse"]
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["rehearsal"]
    assert {step["status"] for step in found["steps"]} <= {PASSED, OUT}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3 + len(steps.SECONDS)
    assert max(path.stat().st_size for path in files) < 10 * 2**20
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in files)
