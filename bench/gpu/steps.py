"""What a machine with a GPU is asked for, in this order: what all else needs first, then the figures."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu.running import Step, available

TESTS = "tests/backends/test_gpu.py"
# One of each kernel and kind of operand; torch's own allocator would hide what lies outside of them.
CHECKED = (
    "test_triton_kernels_equal_the_reference[128-run-bfloat16-(1,7)-63-130-all-transposed-whole-False]",
    "test_triton_kernels_equal_the_reference[64-run-float32-(2,4)-1025-64-all-strided-whole-True]",
    "test_triton_kernels_equal_the_reference[60-scattered-bfloat16-(2,4)-1-1-holes-strided-normal-False]",
    "test_triton_norms_equal_the_reference[3-1025-(float16,float32)-True-summed-dense-zeros-0.1]",
    "test_triton_products_equal_the_reference[130-500-float32-silu-offset-wide]",
    "test_triton_appends_as_the_reference[(60, 60)-7-130-odd-contiguous-float16]",
    "test_slots_are_copied_as_by_the_reference[many-triton]",
    "test_slots_are_copied_as_by_the_reference[many-cuda]",
)
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
WORKERS = 8  # each has a context of its own on the GPU
LONGEST = 60  # seconds for a test: a kernel may hang
# Of the benchmarks, at most. The last compiles models: it takes what is left, and writes what it has.
SECONDS = {"gpu-explain": 90, "gpu-scoring": 40, "gpu-memory": 60, "gpu-generate": 180}
ROUNDS = {"gpu-explain": 7, "gpu-scoring": 20, "gpu-memory": 1, "gpu-generate": 2}


def steps(about: dict[str, Any], out: Path, rehearsal: bool) -> list[Step]:
    """All of them, for the machine that `about.found` tells of.

    Args:
        out: a folder, for a few files of a few MB each.
        rehearsal: the same commands at tiny sizes, where there is no GPU; nothing is built or measured.
    """
    build = [] if rehearsal else [_build(about["capability"])]
    return [*build, _tests(about["machine"]["cores"]), _sanitizer(), _verdicts(rehearsal), _facts(out, rehearsal)] + [
        _benchmark(name, about["load"], out, rehearsal) for name in SECONDS
    ]


def _build(capability: Sequence[int]) -> Step:
    """For this card alone."""
    named = "{}.{}".format(*capability)
    card = {"TORCH_CUDA_ARCH_LIST": f"{named}a" if capability[0] == 9 else named}
    return Step(
        "build", _python("setup.py", "build_ext", "--inplace"), 90, card, wrong=r"dexar_fast\.\w+ is left out.*"
    )


def _tests(cores: int) -> Step:
    """The benchmarks' own code runs in later steps."""
    workers = min(WORKERS, cores // 2)
    parallel = ("-n", str(workers)) if workers > 1 and available("xdist") else ()
    each = ("--timeout", str(LONGEST)) if available("pytest_timeout") else ()
    return Step("tests", _python(*PYTEST, *parallel, *each, "-k", "not suite", TESTS), 130, needs="pytest")


def _sanitizer() -> Step:
    checks = ("compute-sanitizer", "--tool", "memcheck", "--target-processes", "all", "--error-exitcode", "1")
    cases = _python(*PYTEST, *(f"{TESTS}::{case}" for case in CHECKED))
    uncached = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "OMP_NUM_THREADS": "1"}
    return Step("sanitizer", (*checks, *cases), 75, uncached, checks[0], refused="Device not supported")


def _verdicts(rehearsal: bool) -> Step:
    """Those that are reached in time are kept, and count in what follows."""
    measure = () if rehearsal else ("--measure",)
    return Step("verdicts", _python("-m", "dexar_fast", "doctor", *measure), 150)


def _facts(out: Path, rehearsal: bool) -> Step:
    tiny = ("--rehearse",) if rehearsal else ()
    modules = os.pathsep.join([os.environ.get("PYTHONPATH", ""), "tests/support"])
    beside = {"PYTHONPATH": modules, "DEXAR_FAST_VERDICTS": "kept"}  # nothing is judged meanwhile
    return Step("facts", _python("-m", "bench.gpu.facts", str(out), *tiny), 75, beside)


def _benchmark(name: str, load: float, out: Path, rehearsal: bool) -> Step:
    """At the load that was there before the plan's own: nothing here refuses because of that."""
    how = ("--quick", "--rounds", "1") if rehearsal else ("--rounds", str(ROUNDS[name]), "--force")
    return Step(
        name, _python("-m", "bench", "--gpu", name, *how, "--load", f"{load:.2f}", "--out", str(out)), SECONDS[name]
    )


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, *arguments)
