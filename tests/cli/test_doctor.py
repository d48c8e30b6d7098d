"""The doctor's findings, on this machine and on machines made up here."""

import platform
from importlib.metadata import PackageNotFoundError
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
import transformers
from rich.console import Console

import dexar_fast
from dexar_fast.backends import cpp, cpu, plan
from dexar_fast.cli.doctor import installed as doctor
from dexar_fast.cli.doctor.findings import Finding, render
from dexar_fast.errors import BackendError


def findings(group: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor.diagnose()[group]}


def test_versions_are_those_in_use() -> None:
    found = findings("versions")
    assert found["python"].value == platform.python_version()
    assert found["torch"].value == torch.__version__
    assert found["transformers"].value == transformers.__version__
    assert found["dexar-fast"].value == dexar_fast.__version__


def test_missing_packages_are_named_and_torchvision_with_who_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", nothing)
    found = findings("versions")
    assert found["triton"] == Finding("triton", "not installed")
    assert found["torchvision"].value == "not installed"
    assert "Qwen-VL" in found["torchvision"].note


def test_a_torchvision_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor, "version", lambda name: "0.99")
    monkeypatch.setattr(doctor, "import_module", broken)
    found = findings("versions")["torchvision"]
    assert found.value == "0.99"
    assert found.note.startswith("does not import: operator torchvision::nms does not exist")


def test_a_torchvision_that_imports_needs_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "0.99")
    monkeypatch.setattr(doctor, "import_module", lambda name: None)
    assert findings("versions")["torchvision"] == Finding("torchvision", "0.99")


def test_cpu_features_come_from_the_extension() -> None:
    found = findings("machine")
    assert found["C++ extension"].value == "loaded"
    assert found["CPU"].note.split() == list(cpu.detect().instruction_sets)


def test_cpu_without_any_instruction_set_we_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "detect", lambda: cpu.Cpu("riscv64", (), 4))
    assert findings("machine")["CPU"] == Finding("CPU", "riscv64, 4 physical cores", "portable code only")


def test_missing_extension_says_what_to_do(without_extension: None) -> None:
    found = findings("machine")
    assert found["C++ extension"].value == "missing"
    assert "install a C++ compiler" in found["C++ extension"].note
    assert found["CPU"].value == platform.machine()


@pytest.mark.parametrize("command", ["/bin/false", "/does/not/exist -O2", 'g++ "-O2'])
def test_a_compiler_that_does_not_run(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("CXX", command)
    found = findings("machine")["C++ compiler"]
    assert found.value == "not found"
    assert found.note.startswith(command)


def test_the_compiler_that_runs_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/bin/echo ccache g++")
    assert findings("machine")["C++ compiler"] == Finding("C++ compiler", "ccache g++ --version")


@pytest.mark.parametrize(("cuda", "reason"), [(None, "built without CUDA"), ("13.0", "sees no CUDA device")])
def test_no_gpu(monkeypatch: pytest.MonkeyPatch, cuda: str | None, reason: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    found = findings("machine")["GPU"]
    assert found.value == "none"
    assert reason in found.note


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(name="NVIDIA H200", total_memory=140 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    gpus = [finding for finding in doctor.diagnose()["machine"] if finding.name == "GPU"]
    assert gpus == [Finding("GPU", "NVIDIA H200, 140 GiB", "compute capability 9.0")] * 2


def test_every_operation_has_its_backend_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEXAR_FAST_BACKEND", raising=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    expected = [Finding(choice.op, choice.backend, choice.reason) for choice in plan.plan(device=device)]
    assert expected
    assert doctor.diagnose()["operations"] == expected


def test_a_backend_that_cannot_run_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEXAR_FAST_BACKEND", "no-such-backend")
    (found,) = doctor.diagnose()["operations"]
    assert found.value == "none"
    assert "no-such-backend" in found.note


def test_an_instruction_set_that_is_not_there_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> str:
        raise BackendError("the environment's DEXAR_FAST_INSTRUCTIONS is 'no-such-set'")

    monkeypatch.setattr(cpp, "best_instruction_set", refused)
    found = findings("machine")["C++ extension"]
    assert found.value == "not used"
    assert "no-such-set" in found.note


def test_a_driver_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise RuntimeError("CUDA driver\nis broken")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", broken)
    assert findings("machine")["GPU"] == Finding("GPU", "none", "CUDA driver")


def test_render_prints_every_finding_as_it_is() -> None:
    diagnosis = {
        "versions": [Finding("torch", "2.13", "[bold]")],
        "machine": [Finding("GPU", "none", "no CUDA")],
    }
    console = Console(width=200, file=StringIO())
    render(diagnosis, console)
    printed = console.file.getvalue()
    for text in ("versions", "torch", "2.13", "[bold]", "machine", "GPU", "none", "no CUDA"):
        assert text in printed
