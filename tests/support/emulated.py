"""Builds dexar_fast._C for tests: all kernels of the CPU, with instructions in software (bf16_on_cpu)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pybind11
from paths import ROOT

FLAGS = ["-std=c++17", "-O1", "-fPIC", "-fopenmp", "-ffp-contract=fast", "-Wno-psabi"]
IN_SOFTWARE = [f"-I{ROOT / 'tests' / 'support' / 'bf16_on_cpu'}", f"-I{ROOT / 'csrc'}"]  # found first
PYTHON = [
    f"-I{pybind11.get_include()}",
    f"-I{Path(sys.base_prefix) / 'include' / f'python{sys.version_info.major}.{sys.version_info.minor}'}",
]
BINDINGS = [ROOT / "csrc" / f"{name}_binding.cpp" for name in ("head_score", "tail")]
MODULE = [ROOT / "tests" / "support" / "bf16_on_cpu" / "module.cpp", *BINDINGS]


def kernels() -> list[Path]:
    """csrc/cpu, on a CPU that says it has the instructions."""
    sources = sorted(path for path in (ROOT / "csrc" / "cpu").glob("*.cpp") if path.stem != "features")
    return [*sources, ROOT / "tests" / "support" / "bf16_on_cpu" / "features.cpp"]


def build(folder: Path) -> Path:
    library = folder / "_C.so"
    sources = map(str, (*MODULE, *kernels()))
    subprocess.run(["g++", *FLAGS, *IN_SOFTWARE, *PYTHON, "-shared", *sources, "-o", str(library)], check=True)
    return library
