"""The kernels on AVX512_BF16 and AMX, without a CPU that has these: their source on bf16_on_cpu, in software.

Elsewhere test_kernels.py runs them as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import emulated
import pytest
import test_kernels
import torch
from kernel_cases import CASES, check, name, problem
from test_kernels import guarded, threads  # noqa: F401  fixtures

import dexar_fast
from dexar_fast import _C, cpp, doctor

ROOT = Path(__file__).resolve().parent.parent
BFLOAT16 = [case for case in CASES if case["dtype"] == torch.bfloat16]
SMALL = test_kernels.SMALL | {"dtype": torch.bfloat16}
NEW = cpp.INSTRUCTION_SETS[3:]
pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif("avx512" not in cpp.instruction_sets(), reason="the rest of the kernels is compiled for AVX-512"),
]
each = pytest.mark.parametrize("instructions", NEW)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """dexar_fast._C with the emulated instructions, or a mutant of it."""
    built = os.environ.get("DEXAR_FAST_EMULATED") or emulated.build(tmp_path_factory.mktemp("emulated"))
    spec = spec_from_file_location("emulated._C", built)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def here(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated instructions are this machine's."""
    monkeypatch.setattr(dexar_fast, "_C", module)
    monkeypatch.setattr(test_kernels, "SMALL", SMALL)
    module.spoil(False, False)
    cpp.best_instruction_set.cache_clear()
    yield
    cpp.best_instruction_set.cache_clear()


@pytest.fixture
def kernel(instructions: str) -> Callable[..., cpp.Scored]:
    return partial(cpp.head_score, instructions=instructions)


@each
@pytest.mark.parametrize("case", BFLOAT16, ids=name)
def test_equals_the_reference(case: dict[str, Any], kernel: Callable[..., cpp.Scored]) -> None:
    given = problem(case)
    check(kernel(*given.arguments), given)
