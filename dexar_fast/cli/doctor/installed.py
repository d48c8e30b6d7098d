"""What is installed here, what the machine offers, and which backend each operation would take."""

import os
import platform
import shlex
import subprocess
import sysconfig
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from dexar_fast import __version__
from dexar_fast.backends import cpp, cpu, plan
from dexar_fast.cli.doctor import judged
from dexar_fast.cli.doctor.findings import Finding
from dexar_fast.errors import BackendError, reason
from dexar_fast.loading import libraries

_TORCHVISION_USERS = "the processors of Qwen-VL, LLaVA-OneVision, InternVL and SmolVLM need it; LLaVA's does not"
_COMPILER_SECONDS = 10.0


def diagnose() -> dict[str, list[Finding]]:
    """Looks at everything; what is missing or broken is a finding too, never an exception.

    Returns:
        Findings under "versions", "machine", "operations" (an operation, its backend, why) and "verdicts" (on a kernel
        at some sizes).
    """
    own = Finding("dexar-fast", __version__, str(Path(__file__).parents[1]))
    engine = Finding("torch", torch.__version__)  # with its build, which the metadata of some wheels does not name
    packages = [_package(name) for name in ("transformers", "accelerate", "triton")]
    vision, machine = _seen("torchvision", _torchvision), Finding("system", platform.platform())
    parts = {"CPU": _processor, "C++ extension": _extension, "C++ compiler": _compiler, "GPU": _gpus}
    return {
        "versions": [Finding("python", platform.python_version()), own, engine, *packages, *vision],
        "machine": [machine, *(finding for name, look in parts.items() for finding in _seen(name, look))],
        "operations": _seen("all", _operations),
        "verdicts": _seen("all", judged.verdicts),
    }


def _seen(name: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """What is found, or why it cannot be: drivers and libraries that are broken raise any kind of error."""
    try:
        return look()
    except Exception as error:
        return [Finding(name, "none", reason(error))]


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed")


def _torchvision() -> list[Finding]:
    """Imports it, because its wheel also installs beside a torch it was not built for, and then does not import."""
    found = _package("torchvision")
    note = f"{_TORCHVISION_USERS}: {libraries.vision()}"
    if found.value == "not installed":
        return [Finding(found.name, found.value, note)]
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        return [Finding(found.name, found.value, f"does not import: {error}; {note}")]
    return [found]


def _processor() -> list[Finding]:
    try:
        found = cpu.detect()
    except BackendError:
        return [Finding("CPU", platform.machine())]
    cores = f"{found.architecture}, {found.physical_cores} physical cores"
    return [Finding("CPU", cores, " ".join(found.instruction_sets) or "portable code only")]


def _extension() -> list[Finding]:
    try:
        cpu.detect()
    except BackendError as error:
        return [Finding("C++ extension", "missing", str(error))]
    try:
        return [Finding("C++ extension", "loaded", f"it takes {cpp.best_instruction_set()}, or what a verdict takes")]
    except BackendError as error:
        return [Finding("C++ extension", "not used", str(error))]


def _compiler() -> list[Finding]:
    """The compiler that would build the extension."""
    command = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    try:
        shown = subprocess.run(
            [*shlex.split(command), "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_COMPILER_SECONDS,
        )
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: quotes that do not close, bytes of no text
        return [Finding("C++ compiler", "not found", f"{command} does not run; the C++ extension is built with it")]
    return [Finding("C++ compiler", shown.stdout.partition("\n")[0])]


def _gpus() -> list[Finding]:
    if not torch.cuda.is_available():
        reason = "torch sees no CUDA device" if torch.version.cuda else "this torch is built without CUDA"
        return [Finding("GPU", "none", reason)]
    return [_gpu(torch.cuda.get_device_properties(i)) for i in range(torch.cuda.device_count())]


def _gpu(device: "torch.cuda._CudaDeviceProperties") -> Finding:
    memory = f"{device.total_memory / 2**30:.0f} GiB"
    return Finding("GPU", f"{device.name}, {memory}", f"compute capability {device.major}.{device.minor}")


def _operations() -> list[Finding]:
    device = "cuda" if torch.cuda.is_available() else "cpu"  # what a model would be moved to
    return [Finding(choice.op, choice.backend, choice.reason) for choice in plan.plan(device=device)]
