"""The kernels on AVX512_BF16 and AMX, without a CPU that has these: their source on bf16_on_cpu, in software.

Elsewhere test_kernels.py runs them as they are.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import emulated
import pytest
import test_kernels
import torch
from kernel_cases import CASES, check, equal, name, problem, run
from paths import ROOT
from test_kernels import guarded  # noqa: F401  fixture

import dexar_fast
from dexar_fast import _C
from dexar_fast.backends import cpp
from dexar_fast.backends.judging import scoring
from dexar_fast.backends.verdicts import kept
from dexar_fast.backends.verdicts.case import Case, Verdict, scoring_case

BFLOAT16 = [case | {"dtype": torch.bfloat16} for case in CASES]
SMALL = test_kernels.SMALL | {"dtype": torch.bfloat16}
NEW = cpp.INSTRUCTION_SETS[3:]
INSTRUCTIONS = {"vdpbf16ps", "ldtilecfg", "tilezero", "tileloadd", "tdpbf16ps", "tilestored", "tilerelease"}
pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif(
        "avx512" not in cpp.instruction_sets(), reason="the rest of the kernels is compiled for AVX-512"
    ),
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
def here(module: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
    check(run(kernel, given), given)


@each
@pytest.mark.parametrize("dim", [1, 2, 31, 32, 33, 64])
@pytest.mark.parametrize(("keys", "visual"), [(16, "all"), (33, "all"), (47, "none"), (48, "scattered")])
def test_tails_equal_the_reference(dim: int, keys: int, visual: str, kernel: Callable[..., cpp.Scored]) -> None:
    """Whole tiles, and one number or key more or less; rows read in place and gathered; results beside poison."""
    for queries, layout in ((1, "offset"), (48, "contiguous"), (65, "transposed")):
        given = problem(SMALL | {"dim": dim, "keys": keys, "queries": queries, "visual": visual, "layout": layout})
        check(run(kernel, given), given)


@each
def test_rows_at_one_distance_are_read_where_they_are(kernel: Callable[..., cpp.Scored]) -> None:
    """Every other key, the last key first, or all keys in one place."""
    given = problem(SMALL | {"dim": 64, "keys": 96, "sight": "all"})
    every_other = torch.arange(0, 96, 2)
    for case in (
        replace(given, visual=every_other, text=every_other + 1),
        replace(given, visual=given.visual.flip(0)),
        replace(given, value=given.value[:, :1].expand(-1, 96, -1)),
    ):
        check(run(kernel, case), case)


@each
def test_a_gap_anywhere_in_a_tile(kernel: Callable[..., cpp.Scored]) -> None:
    given = problem(SMALL | {"dim": 64, "keys": 32, "sight": "all"})
    for place in range(1, 16):
        keys = torch.arange(16)
        keys[place:] += 3
        case = replace(given, visual=keys, text=keys[:0])
        check(run(kernel, case), case)


@each
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dim", [33, 34])
def test_what_lies_behind_a_row_is_not_of_it(bad: float, dim: int, kernel: Callable[..., cpp.Scored]) -> None:
    """Rows and queries end within a pair, or within a tile; poison follows them."""
    given = problem(SMALL | {"dim": dim, "keys": 40})
    wide = [torch.full((*x.shape[:2], dim + 40), bad, dtype=x.dtype) for x in (given.u, given.value)]
    for memory, x in zip(wide, (given.u, given.value), strict=True):
        memory[..., :dim] = x
    poisoned = replace(given, u=wide[0][..., :dim], value=wide[1][..., :dim])
    check(run(kernel, poisoned), given)


@each
@pytest.mark.parametrize("visual_key", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_values_reach_all_that_they_enter(bad: float, visual_key: bool, kernel: Callable[..., cpp.Scored]) -> None:
    test_kernels.test_bad_values_reach_all_that_they_enter_and_nothing_else(kernel, bad, visual_key)
    test_kernels.test_a_bad_query_spoils_itself_alone(kernel)


@each
def test_what_holds_of_every_kernel_to_the_last_bit(
    kernel: Callable[..., cpp.Scored],
    threads: Callable[[int], None],
) -> None:
    test_kernels.test_maps_are_added_to_what_is_there(kernel)
    test_kernels.test_the_number_of_threads_changes_no_bit(kernel, threads)
    test_kernels.test_a_query_does_not_depend_on_the_others(kernel)
    test_kernels.test_the_first_of_equal_keys_wins(kernel)
    test_kernels.test_sums_that_underflow_to_minus_zero_are_zero(kernel)


@each
def test_other_types_take_avx512(instructions: str, kernel: Callable[..., cpp.Scored]) -> None:
    for dtype in (torch.float32, torch.float64, torch.float16):
        given = problem(SMALL | {"dtype": dtype})
        assert equal(run(kernel, given), run(partial(cpp.head_score, instructions="avx512"), given))


@each
def test_every_number_is_read_exactly(
    instructions: str, kernel: Callable[..., cpp.Scored], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_kernels, "KERNELS", {instructions: kernel})
    test_kernels.test_every_half_precision_number_is_read_exactly()


def case_of(instructions: str, dim: int = 64) -> Case:
    return Case("head_score", instructions, "cpu", "bfloat16", (4, 2, dim, 16, 200))


def worst(instructions: str) -> float:
    """The largest error, as a part of what is allowed: D = 64 (rows of V read in place) and 83 (copied)."""
    return max(scoring.trial(case_of(instructions, dim)).worst() for dim in (64, 83))


@each
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("tiles", [False, True])
def test_the_trial_finds_instructions_that_go_wrong(module: Any, instructions: str, pairs: bool, tiles: bool) -> None:
    module.spoil(pairs, tiles)
    assert (worst(instructions) > 1) == (tiles if instructions == "amx" else pairs)


@each
def test_the_trial_sees_nan(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(*given: Any, **more: Any) -> Any:
        scores = head_score(*given, **more)
        scores[0].fill_(torch.nan)
        return scores

    head_score = cpp.head_score
    monkeypatch.setattr(cpp, "head_score", spoilt)
    assert worst(instructions) > 1


@each
def test_the_trial_sees_what_is_not_written(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def skipping(*given: Any, **more: Any) -> Any:
        return cpp.empty_scores(given[0]) if more["instructions"] == instructions else head_score(*given, **more)

    head_score = cpp.head_score
    monkeypatch.setattr(cpp, "head_score", skipping)
    assert worst(instructions) > 1


@pytest.mark.parametrize(
    ("ratios", "best"),
    [({}, "avx512"), ({"amx": 0.0}, "avx512"), ({"avx512_bf16": 1.2, "amx": 0.0}, "avx512_bf16"),
     ({"avx512_bf16": 1.2, "amx": 1.1}, "avx512_bf16"), ({"avx512_bf16": 1.2, "amx": 3.0}, "amx")],
)  # fmt: skip
def test_the_fastest_that_a_verdict_takes_is_taken(
    ratios: dict[str, float], best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cpp.ENVIRONMENT, raising=False)
    given = problem(SMALL)
    known = {scoring_case(each, given.u, given.value): Verdict(False, "", 0.0, "") for each in NEW}
    known |= {scoring_case(each, given.u, given.value): Verdict(r > 0, "", r, "") for each, r in ratios.items()}
    monkeypatch.setattr(kept, "_known", known)
    assert cpp.instructions_for(given.u, given.value) == best
    assert cpp.instructions_for(given.u.float(), given.value.float()) == "avx512"
    assert cpp.best_instruction_set() == "avx512"
    assert equal(run(cpp.head_score, given), run(partial(cpp.head_score, instructions=best), given))
    monkeypatch.setenv(cpp.ENVIRONMENT, "avx2")
    cpp.best_instruction_set.cache_clear()
    assert cpp.instructions_for(given.u, given.value) == "avx2"


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_the_extension_holds_the_instructions_and_the_emulation_none(module: Any) -> None:
    for library, expected in ((_C.__file__, INSTRUCTIONS), (module.__file__, set())):
        shown = subprocess.run(
            ["objdump", "-d", "--no-show-raw-insn", library], capture_output=True, text=True, check=True
        )
        assert INSTRUCTIONS & set(re.findall(r"\t(\w+)", shown.stdout)) == expected


@pytest.mark.parametrize("kernel", ["amx", "avx512_bf16"])
def test_older_compilers_leave_them_out(kernel: str, tmp_path: Path) -> None:
    source, built = ROOT / "csrc" / "cpu" / f"head_score_{kernel}.cpp", tmp_path / "kernel.s"
    older = ["-U__GNUC__", "-D__GNUC__=10", f"-I{ROOT / 'csrc'}"]
    subprocess.run(["g++", "-std=c++17", "-O1", "-S", *older, str(source), "-o", str(built)], check=True)
    assert not INSTRUCTIONS & set(re.findall(r"\t(\w+)", built.read_text()))


def test_vdpbf16ps_is_what_the_emulation_makes_of_it(tmp_path: Path) -> None:
    """To the last bit, on a CPU that has it, even if its hypervisor hides that; other CPUs end with SIGILL."""
    folder, program = ROOT / "tests" / "support" / "bf16_on_cpu", str(tmp_path / "compare")
    for kind, includes in (("in_software", emulated.IN_SOFTWARE), ("by_the_cpu", emulated.IN_SOFTWARE[1:])):
        command = ["g++", *emulated.FLAGS, f"-DNAME={kind}", *includes, "-c", str(folder / "pairs.cpp")]
        subprocess.run([*command, "-o", str(tmp_path / f"{kind}.o")], check=True)
    objects = map(str, tmp_path.glob("*.o"))
    subprocess.run(["g++", *emulated.FLAGS, str(folder / "compare.cpp"), *objects, "-o", program], check=True)
    done = subprocess.run([program], timeout=120)
    if done.returncode == -signal.SIGILL:
        pytest.skip("this CPU has no VDPBF16PS")
    assert done.returncode == 0
