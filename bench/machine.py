"""What a figure was measured on: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import dexar_fast

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("transformers", "triton", "captum", "pytest-benchmark")
NO_NAME = {"intel", "amd", "nvidia", "cpu", "gpu", "processor", "virtual", "tm", "r", "with"}


def facts() -> dict[str, Any]:
    """CPU model, cores, threads, memory in GiB, GPU (None without one)."""
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "gpu": gpu(),
        "system": platform.platform(),
    }


def versions() -> dict[str, str | None]:
    """Of Python, this package and what it stands on; None where it is not installed."""
    own = {"python": platform.python_version(), "dexar_fast": dexar_fast.__version__}
    return own | {"torch": torch.__version__} | {name: _version(name) for name in PACKAGES}  # torch tells its build


def commit() -> str:
    """The commit of the checkout, with -dirty where files other than results differ from it; "unknown" outside one."""
    try:
        found = _git("rev-parse", "HEAD").strip()
        return f"{found}-dirty" if _git("status", "--porcelain", "--", ".", ":!bench/results").strip() else found
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def short(commit: str) -> str:
    """Twelve digits of a commit, and whether the files differed from it."""
    return f"{commit[:12]} with uncommitted changes" if commit.endswith("-dirty") else commit[:12]


def slug(gpu_name: str | None = None) -> str:
    """A short stable name for the machine: of its GPU where that is measured, else of its CPU and cores."""
    return _slug(gpu_name) if gpu_name else f"{_slug(cpu_model())}-{cores()}core"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def cpu_model() -> str:
    """The name the processor gives itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def command() -> str:
    """What to type to run this again."""
    return " ".join(["python -m bench", *sys.argv[1:]])


def _slug(name: str) -> str:
    """The words of a name that tell it from others: "Intel(R) Xeon(R) Processor" is "xeon"."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"\d+-core", "", name.partition("@")[0].lower()))
    kept = [word for word in words if word not in NO_NAME and not re.fullmatch(r"\d+gb", word)]
    return "-".join(kept) or "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None
