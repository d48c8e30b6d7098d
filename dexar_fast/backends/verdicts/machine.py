"""What a verdict depends on: the processor, its driver, the versions of libraries, and our own code."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch

from dexar_fast.backends import cpu

PACKAGE = Path(__file__).parents[2]


@cache
def machine(device: str) -> dict[str, str]:
    """Of the device cpu or cuda:N."""
    parts = _gpu(torch.device(device)) if device.startswith("cuda") else _processor()
    return parts | {"torch": torch.__version__, "source": _source()}


@cache
def key(device: str) -> str:
    """A name for all of that."""
    return hashlib.sha256(json.dumps(machine(device), sort_keys=True).encode()).hexdigest()[:32]


def _gpu(device: torch.device) -> dict[str, str]:
    card = torch.cuda.get_device_properties(device)
    return {
        "card": f"{card.name}, {card.major}.{card.minor}",
        "driver": _first(Path("/proc/driver/nvidia/version"), r"Module.*?([\d.]+)"),
        "cuda": str(torch.version.cuda),
        "triton": _version("triton"),
    }


def _processor() -> dict[str, str]:
    found = cpu.detect()
    model = _first(Path("/proc/cpuinfo"), r"model name\s*: (.*)")
    return {"card": f"{model}, {found.architecture}, {' '.join(found.instruction_sets)}", "driver": platform.release()}


def _first(path: Path, pattern: str) -> str:
    """What the pattern's group finds in a file; nothing if there is no such file."""
    try:
        found = re.search(pattern, path.read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _source() -> str:
    """A name for the code of the kernels and of what judges them."""
    found = hashlib.sha256()
    for path in sorted(_sources()):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def _sources() -> Iterator[Path]:
    for pattern in ("backends/**/*.py", "*.so"):
        yield from PACKAGE.glob(pattern)
    kernels = find_spec("dexar_fast.kernels")
    for folder in (kernels.submodule_search_locations or ()) if kernels else ():
        yield from Path(folder).glob("*.py")
