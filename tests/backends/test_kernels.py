"""Every kernel against the reference in float64; what must hold to the last bit; what must be refused."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import emulated
import pytest
import torch
from kernel_cases import CASES, MAPS, NAMES, Guarded, Problem, check, check_scores, equal, name, problem, run
from paths import ROOT
from torch.utils.flop_counter import FlopCounterMode

from dexar_fast import _C, InputError
from dexar_fast.backends import cpp, cpu, eager, operands, operators, ops
from dexar_fast.backends.cpp import empty_scores

KERNELS: dict[str, Callable[..., cpp.Scored]] = {
    s: partial(cpp.head_score, instructions=s) for s in cpp.instruction_sets()
}
SMALL = {"dim": 20, "visual": "run", "dtype": torch.float32, "heads": (2, 2), "keys": 40, "queries": 5,
         "sight": "causal", "layout": "contiguous", "values": "normal", "attended": False}  # fmt: skip
MARKED_NAN = {  # with all of the bits set that hold n where the exponential is a number
    torch.float32: torch.tensor(0x7FC001FF, dtype=torch.int32).view(torch.float32),
    torch.float64: torch.tensor(0x7FF8000000000FFF).view(torch.float64),
}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Results are poison until they are written, and nothing is written beside them."""
    outputs = Guarded()
    monkeypatch.setattr(cpp, "empty_scores", outputs)
    yield
    outputs.check()


def test_the_cases_are_few_and_hold_every_pair() -> None:
    assert 30 < len(CASES) <= 60
    assert any(case["visual"] == "none" and case["dim"] == 256 for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_equals_the_reference(case: dict[str, Any]) -> None:
    given = problem(case)
    for instructions, kernel in KERNELS.items():
        print(instructions)  # shown where the check fails
        check(run(kernel, given), given)


def by_layer(given: Problem, backend: str) -> dict[str, torch.Tensor]:
    """Scores and maps by the operation."""
    keys, sums = (
        operands.Keys.of(given.visual, given.text, given.attendable),
        operands.MapSums(torch.stack(given.before)),
    )
    scores = ops.head_score(given.u, given.value, keys, sums, attention=given.attention, backend=backend)
    return vars(scores) | {"token_map": sums.token_map, "unfiltered_map": sums.unfiltered_map}


@pytest.mark.parametrize("case", CASES, ids=name)
def test_torch_equals_the_reference(case: dict[str, Any]) -> None:
    given = problem(case)
    check_scores(by_layer(given, "torch"), given)


def test_attention_reaches_the_kernels() -> None:
    """Through the operation, in blocks of queries on torch, and on the backend that is chosen."""
    given = problem(SMALL | {"attended": True})
    for backend in ("torch", "cpp"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(eager, "SCORE_BYTES_ON_CPU", 1000)
            check_scores(by_layer(given, backend), given)


@every_kernel
def test_maps_are_added_to_what_is_there(kernel: Callable[..., cpp.Scored]) -> None:
    """Once, with heads that are summed apart and with blocks of queries; all numbers are whole, so nothing rounds."""
    for queries, heads in ((3, (3, 3)), (130, (2, 2)), (520, (1, 2))):
        given = problem(SMALL | {"values": "whole", "queries": queries, "heads": heads, "keys": 90})
        zeros = [torch.zeros_like(x) for x in given.before]
        alone, found = run(kernel, given, zeros), run(kernel, given)
        for result, before in zip(NAMES[4:], given.before, strict=True):
            assert alone[result].any()
            assert torch.equal(found[result], before + alone[result]), result


@every_kernel
def test_the_number_of_threads_changes_no_bit(
    kernel: Callable[..., cpp.Scored], threads: Callable[[int], None]
) -> None:
    for queries, heads in ((3, (3, 7)), (130, (4, 1)), (600, (1, 2))):
        given = problem(SMALL | {"queries": queries, "heads": heads, "keys": 700})
        threads(1)
        alone = run(kernel, given)
        for count in (2, 3):
            threads(count)
            assert equal(run(kernel, given), alone)


@every_kernel
def test_a_query_does_not_depend_on_the_others(kernel: Callable[..., cpp.Scored]) -> None:
    """To the last bit, as long as their number does not change how heads are summed."""
    given = problem(SMALL | {"queries": 64, "keys": 300})
    whole = run(kernel, given)
    part = run(kernel, Problem(given.u[:50], given.value, given.visual, given.text, given.attendable[:50]))
    assert equal(part, {result: found[:50] for result, found in whole.items()})


@every_kernel
@pytest.mark.parametrize("bad", [float("nan"), float("-nan"), float("inf")])
@pytest.mark.parametrize("visual_key", [True, False])
def test_bad_values_reach_all_that_they_enter_and_nothing_else(
    kernel: Callable[..., cpp.Scored], bad: float, visual_key: bool
) -> None:
    given = problem(SMALL)
    given.u.abs_()
    keys = given.visual if visual_key else given.text
    key = int(keys[len(keys) // 2])
    given.attendable[0, key] = False
    clean = run(kernel, given)
    given.value[1, key, 2] = torch.tensor(bad).copysign(torch.tensor(bad))
    found = run(kernel, given)
    touched = "visual_score" if visual_key else "text_score"
    assert not found[touched][1:, 2:].isfinite().any()
    assert torch.equal(found[touched][:, :2], clean[touched][:, :2])
    column = int((given.visual == key).nonzero()) if visual_key else None
    assert not found["token_map"][1:, slice(None) if column is None else column].isfinite().any() or not visual_key
    assert all(torch.equal(found[result][0], clean[result][0]) for result in NAMES)
    if visual_key:
        assert not found["unfiltered_map"][1:, column].isfinite().any()
        rest = torch.arange(len(given.visual)) != column
        assert torch.equal(found["unfiltered_map"][:, rest], clean["unfiltered_map"][:, rest])
    elif bad != bad:
        assert (found["text_winner"][1:, 2:] == -1).all()
        assert found["token_map"][1:].isnan().all()


@every_kernel
def test_a_bad_query_spoils_itself_alone(kernel: Callable[..., cpp.Scored]) -> None:
    given = problem(SMALL)
    clean = run(kernel, given)
    given.u[3, 1, 0] = torch.nan
    found = run(kernel, given)
    for result in ("visual_score", "text_score", "smallest"):
        assert found[result].isnan().nonzero().tolist() == [[3, 1]], result
    for result in ("token_map", "unfiltered_map"):
        assert found[result].isnan().all(1).tolist() == [False, False, False, True, False], result
    for result, before in clean.items():
        assert torch.equal(found[result][[0, 1, 2, 4]], before[[0, 1, 2, 4]]), result


@every_kernel
def test_the_first_of_equal_keys_wins(kernel: Callable[..., cpp.Scored]) -> None:
    given = problem(SMALL | {"keys": 300, "attended": True})
    for x in (given.u, given.value, *vars(given.attention).values()):
        if isinstance(x, torch.Tensor):
            x.fill_(0.5)
    assert torch.equal(run(kernel, given)["text_winner"], torch.zeros(5, 4, dtype=torch.int64))


@every_kernel
def test_probabilities_beyond_the_range_of_numbers(kernel: Callable[..., cpp.Scored]) -> None:
    """Too small: 0. Too large: infinity. NaN stays. The limits are e^-87 and e^88, in float64 e^-708 and e^709."""
    for dtype in (torch.float32, torch.float64):
        given = problem(SMALL | {"attended": True, "dtype": dtype, "sight": "all"})
        assert given.attention is not None
        given.u.abs_(), given.value.abs_()
        total = given.attention.log_sum_exp
        total += torch.tensor([-2000, -80, 80, 2800, 0])[:, None]
        total[4] = MARKED_NAN[dtype]
        score = run(kernel, given)["visual_score"]
        wanted, slack = given.scores(given.visual)
        assert score[0].isinf().all() and score[4].isnan().all() and (score[3] == 0).all()
        assert ((score[1:3] - wanted[1:3]).abs() <= slack[1:3]).all() and (wanted[1:3] > 0).all()


@every_kernel
def test_sums_that_underflow_to_minus_zero_are_zero(kernel: Callable[..., cpp.Scored]) -> None:
    """A product below the smallest number rounds to -0, whose bits are larger than any positive number's."""
    given = problem(SMALL)
    given.u.fill_(1e-30)
    given.value.fill_(-1e-30)
    zeros = [torch.zeros_like(x) for x in given.before]
    for result, found in run(kernel, given, zeros).items():
        assert not found.signbit().any() or result == "text_winner"


def test_every_half_precision_number_is_read_exactly() -> None:
    """All 65,536 of each kind, as the only feature of the keys; NaN and infinity as what they are."""
    for dtype in (torch.float16, torch.bfloat16):
        numbers = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(dtype)
        given = Problem(
            torch.ones(1, 1, 1, dtype=dtype), numbers[None, :, None], torch.arange(2**16), torch.arange(0),
            torch.ones(1, 2**16, dtype=torch.bool),
        )  # fmt: skip
        for instructions, kernel in KERNELS.items():
            found = run(kernel, given, [torch.zeros(1, 2**16)] * 2)["unfiltered_map"][0]
            assert torch.equal(found.nan_to_num(-1), as_read(numbers, instructions).relu().nan_to_num(-1))


def as_read(numbers: torch.Tensor, instructions: str) -> torch.Tensor:
    """Those of bfloat16 count subnormal numbers as 0."""
    wide = numbers.float()
    if numbers.dtype != torch.bfloat16 or instructions in cpp.TRUSTED:
        return wide
    return torch.where(wide.abs() < torch.finfo(torch.float32).smallest_normal, 0, wide)


def test_the_operator_is_registered_as_torch_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp, "empty_scores", empty_scores)  # torch wants results without margins
    for case in (
        SMALL,
        SMALL | {"sight": "holes", "dtype": torch.bfloat16},
        SMALL | {"visual": "none"},
        SMALL | {"attended": True},
    ):
        torch.library.opcheck(operators.head_score, problem(case).arguments, raise_exception=True)


def test_torch_counts_the_operators_arithmetic() -> None:
    for attended in (False, True):
        given = problem(SMALL | {"attended": attended})
        with FlopCounterMode(display=False) as counter:
            operators.head_score(*given.arguments)
        products = 1 + attended
        assert counter.get_total_flops() == 2 * products * 5 * 4 * 20 * (len(given.visual) + len(given.text))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_function_calls_the_operator(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And sees what it adds to the maps."""
    monkeypatch.setattr(cpp, "empty_scores", empty_scores)
    given = problem(SMALL)

    def doubled(*arguments: torch.Tensor) -> cpp.Scored:
        scores = operators.head_score(*arguments)
        for x in arguments[MAPS]:
            x *= 2
        return tuple(score * 2 for score in scores)  # type: ignore[return-value]

    wanted = run(operators.head_score, given)
    assert equal(
        run(torch.compile(doubled, backend=backend, fullgraph=True), given), {name: x * 2 for name, x in wanted.items()}
    )


REFUSED: dict[str, tuple[dict[int, Any], str]] = {
    "two dtypes": ({1: torch.ones(2, 40, 20, dtype=torch.float64)}, "one dtype"),
    "whole numbers": (
        {0: torch.ones(5, 4, 20, dtype=torch.int64), 1: torch.ones(2, 40, 20, dtype=torch.int64)},
        "dtype",
    ),
    "another dimension": ({1: torch.ones(2, 40, 19)}, "do not fit"),
    "heads that do not divide": ({1: torch.ones(3, 40, 20)}, "do not fit"),
    "no head": ({1: torch.ones(0, 40, 20)}, "do not fit"),
    "one axis too few": ({0: torch.ones(4, 20)}, "do not fit"),
    "a key too far": ({2: torch.tensor([3] * 19 + [40])}, "from 0 to 39"),
    "a negative key": ({3: torch.tensor([-1, 3])}, "from 0 to 39"),
    "a mask as positions": ({2: torch.ones(5, dtype=torch.bool)}, "no masks"),
    "positions between positions": ({3: torch.tensor([0.5, 1.5])}, "no masks"),
    "bounds that are no numbers": ({4: torch.full((5,), torch.nan)}, "no masks"),
    "positions in a table": ({3: torch.ones(2, 2, dtype=torch.int32)}, "one list"),
    "bounds of other queries": ({4: torch.zeros(4, dtype=torch.int32)}, "each of 5 queries"),
    "a mask of other keys": ({6: torch.ones(5, 39, dtype=torch.bool)}, r"bool \[5, 40\]"),
    "a mask of numbers": ({6: torch.ones(5, 40)}, r"bool \[5, 40\]"),
    "a map of other queries": ({7: torch.zeros(4, 20)}, r"dense torch.float32 \[5, 20\]"),
    "a map of other keys": ({8: torch.zeros(5, 19)}, r"dense torch.float32 \[5, 20\]"),
    "maps in one row": ({8: torch.zeros(100)}, r"dense torch.float32 \[5, 20\]"),
    "a map of another dtype": ({7: torch.zeros(5, 20, dtype=torch.float64)}, r"dense torch.float32 \[5, 20\]"),
    "a map with gaps": ({8: torch.zeros(5, 40)[:, ::2]}, r"dense torch.float32 \[5, 20\]"),
    "a map elsewhere": ({7: torch.zeros(5, 20, device="meta")}, "on cpu"),
    "a map whose sign is put off": ({8: torch._neg_view(torch.zeros(5, 20))}, "dense"),
    "a query without keys": ({9: torch.ones(5, 4, 20)}, "together"),
    "queries of other heads": (
        {9: torch.ones(5, 2, 20), 10: torch.ones(2, 40, 20), 11: torch.ones(5, 4)},
        "shaped as u",
    ),
    "queries of another dtype": (
        {9: torch.ones(5, 4, 20).half(), 10: torch.ones(2, 40, 20), 11: torch.ones(5, 4)},
        "must be torch.float32",
    ),
    "sums elsewhere": (
        {9: torch.ones(5, 4, 20), 10: torch.ones(2, 40, 20), 11: torch.ones(5, 4, device="meta")},
        "CPU tensors",
    ),
    "another device": ({0: torch.ones(5, 4, 20, device="meta")}, "CPU tensors"),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_memory_that_is_not_there_is_never_read(changes: dict[int, Any], words: str) -> None:
    arguments = [*problem(SMALL).arguments, None, None, None]
    for index, argument in changes.items():
        arguments[index] = argument
    with pytest.raises(InputError, match=words):
        cpp.head_score(*arguments)


def test_bounds_beyond_32_bits_are_beyond_the_last_key() -> None:
    given = problem(SMALL)
    first, last = torch.zeros(5, dtype=torch.int64), torch.full((5,), 39)

    def between(first: torch.Tensor, last: torch.Tensor) -> dict[str, torch.Tensor]:
        return run(lambda *given: cpp.head_score(*given[:4], first, last, None, *given[MAPS]), given)

    assert equal(between(first - 2**40, last + 2**31), between(first, last))


def test_a_sign_that_torch_has_put_off_is_not_forgotten() -> None:
    """The imaginary part of a conjugate is a view of memory that holds its negative."""
    given = problem(SMALL)
    put_off = torch.complex(given.u, -given.u).conj().imag
    assert put_off.is_neg()
    assert equal(run(cpp.head_score, replace(given, u=put_off)), run(cpp.head_score, given))


@pytest.mark.parametrize(
    ("shape", "threads"),
    [((5, 4, 2, 40, 20), 0), ((5, 4, 0, 40, 20), 1), ((5, 3, 2, 40, 20), 1), ((-5, 4, 2, 40, 20), 1)],
)
def test_the_extension_itself_refuses_sizes_that_cannot_be(shape: tuple[int, ...], threads: int) -> None:
    """Addresses it must believe."""
    nothing = (0, (0, 0, 0))
    with pytest.raises(ValueError, match="head_score"):
        _C.head_score(
            "float32", shape, nothing, nothing, (0, 0), (0, 0), (0, 0), (0, 0), (nothing, nothing, 0, 1.0), [0] * 4,
            (0, 0), "portable", threads,
        )  # fmt: skip


def test_instruction_sets_are_those_the_cpu_has() -> None:
    avx2, avx512 = {"avx2", "fma"}, {"avx512f", "avx512bw", "avx512vl", "avx512dq", "fma"}
    needs = [set(), avx2, avx512, avx512 | {"avx512bf16"}, avx512 | {"amx_tile", "amx_bf16"}]
    has = set(cpu.detect().instruction_sets)
    assert cpp.instruction_sets() == [s for s, need in zip(cpp.INSTRUCTION_SETS, needs, strict=True) if need <= has]


def test_an_instruction_set_this_cpu_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="knows no avx1024"):
        cpp.head_score(*problem(SMALL).arguments, instructions="avx1024")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """The C++ alone, under AddressSanitizer and UndefinedBehaviorSanitizer, on arrays of exactly their size.

    Instructions of bfloat16 are those of bf16_on_cpu, which ends where they would fault.
    """
    flags = ["-std=c++17", "-O1", "-g", "-fopenmp", "-Wno-psabi", "-fsanitize=address,undefined"]
    sources = [*emulated.kernels(), ROOT / "tests" / "support" / "sanitized.cpp"]
    program = tmp_path / "sanitized"
    command = ["g++", *flags, "-fno-sanitize-recover=all", *emulated.IN_SOFTWARE, *map(str, sources)]
    subprocess.run([*command, "-o", str(program)], check=True)
    subprocess.run([str(program)], check=True, timeout=120)
