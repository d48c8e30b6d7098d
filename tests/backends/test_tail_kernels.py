"""The layer tail's element-wise steps on every backend of the CPU against the reference in float64."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import ROOT
from tail_cases import (
    GATED_CASES,
    NORM_CASES,
    GuardedTail,
    check_bad_values,
    check_gated,
    check_norm,
    gated_problem,
    laid,
    name,
    norm_problem,
)

from dexar_fast import _C, InputError
from dexar_fast.attribution.tails import vjp
from dexar_fast.backends import cpp, cpp_tail, tail_operators
from dexar_fast.backends.cpp_tail import empty_gated, empty_norm

AVAILABLE = cpp.INSTRUCTION_SETS[: cpp.INSTRUCTION_SETS.index(cpp.best_instruction_set()) + 1]
NORMS: dict[str, Callable[..., torch.Tensor]] = {s: partial(cpp_tail.norm_vjp, instructions=s) for s in AVAILABLE}
GATED: dict[str, Callable[..., Any]] = {s: partial(cpp_tail.gated_vjp, instructions=s) for s in AVAILABLE}
NORM = {"rows": 3, "width": 70, "dtypes": (torch.float32, torch.float32), "centred": False, "residual": "summed",
        "layout": "dense", "values": "normal", "eps": 1e-6}  # fmt: skip
PRODUCT = {"rows": 3, "width": 70, "dtype": torch.float32, "activation": "silu", "layout": "dense", "values": "normal"}
LAYOUTS = ("apart", "offset", "transposed")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ALONE = 64 * 1024  # elements: kAlone of csrc/cpu/tail.h
every_set = pytest.mark.parametrize("instructions", AVAILABLE)


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Results are poison until they are written, and nothing is written beside them."""
    outputs = GuardedTail()
    outputs.patch(monkeypatch, cpp_tail)
    yield
    outputs.check()


def test_the_cases_are_few() -> None:
    assert 24 <= len(GATED_CASES) < len(NORM_CASES) <= 70


@pytest.mark.parametrize("case", NORM_CASES, ids=name)
def test_norms_equal_the_reference(case: dict[str, Any]) -> None:
    given = norm_problem(case)
    for instructions, norm in NORMS.items():
        print(instructions)  # shown where the check fails
        check_norm(norm(*given.arguments), given)


@pytest.mark.parametrize("case", GATED_CASES, ids=name)
def test_products_equal_the_reference(case: dict[str, Any]) -> None:
    given = gated_problem(case)
    for instructions, gated in GATED.items():
        print(instructions)
        check_gated(gated(*given.arguments), given)


@pytest.mark.parametrize("case", NORM_CASES, ids=name)
def test_norms_of_torch_equal_the_reference(case: dict[str, Any]) -> None:
    given = norm_problem(case)
    *arguments, centred = given.arguments
    check_norm(vjp.norm_vjp(*arguments, centred=centred, backend="torch"), given)


@pytest.mark.parametrize("case", GATED_CASES, ids=name)
def test_products_of_torch_equal_the_reference(case: dict[str, Any]) -> None:
    given = gated_problem(case)
    check_gated(vjp.gated_vjp(*given.arguments, backend="torch"), given, by_torch=True)


@every_set
@pytest.mark.parametrize("elements", [200, ALONE + 2000])
@pytest.mark.parametrize("rows", [3, 130])
def test_the_number_of_threads_changes_no_bit(
    instructions: str, rows: int, elements: int, threads: Callable[[int], None]
) -> None:
    """Above and below the size from which there are several."""
    sizes = {"rows": rows, "width": elements // rows}
    norm = norm_problem(NORM | sizes).arguments
    dense, apart = (gated_problem(PRODUCT | sizes | {"layout": layout}).arguments for layout in ("dense", "apart"))

    def results() -> list[torch.Tensor]:
        gated = GATED[instructions]
        return [NORMS[instructions](*norm), *gated(*dense), *gated(*apart)]

    threads(1)
    alone = results()
    for count in (2, 3):
        threads(count)
        assert all(map(torch.equal, alone, results()))


@every_set
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_neither_its_neighbours_nor_its_place_change_a_bit_of_a_row(instructions: str, dtype: torch.dtype) -> None:
    norm = norm_problem(NORM | {"rows": 40, "width": 333, "dtypes": (dtype, dtype)})
    product = gated_problem(PRODUCT | {"rows": 40, "width": 333, "dtype": dtype})
    wanted, pair = NORMS[instructions](*norm.arguments), GATED[instructions](*product.arguments)
    assert norm.residual is not None
    for layout in LAYOUTS:
        x, grad, residual = (laid(rows[:7], layout) for rows in (norm.x, norm.grad, norm.residual))
        assert torch.equal(NORMS[instructions](x, grad, norm.scale, norm.eps, residual), wanted[:7])
        grad, gate, up = (laid(rows[:7], layout) for rows in (product.grad, product.gate, product.up))
        for result, whole in zip(GATED[instructions](grad, gate, up, "silu"), pair, strict=True):
            assert torch.equal(result, whole[:7])


@every_set
def test_strides_of_the_arguments_may_differ(instructions: str) -> None:
    norm, product = norm_problem(NORM), gated_problem(PRODUCT)
    wanted, pair = NORMS[instructions](*norm.arguments), GATED[instructions](*product.arguments)
    for moved in ("x", "grad", "residual"):
        given = vars(norm) | {moved: laid(getattr(norm, moved), "apart")}
        assert torch.equal(NORMS[instructions](*given.values()), wanted)
    for moved in ("grad", "gate", "up"):
        given = vars(product) | {moved: laid(getattr(product, moved), "apart")}
        assert all(map(torch.equal, GATED[instructions](*given.values()), pair))


@every_set
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bad_values_reach_all_that_they_enter_and_nothing_else(instructions: str, dtype: torch.dtype) -> None:
    check_bad_values(NORMS[instructions], GATED[instructions], dtype)


@every_set
@pytest.mark.parametrize("activation", cpp_tail.ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gates_beyond_all_exponentials(instructions: str, activation: str, dtype: torch.dtype) -> None:
    """act(g) is g or 0 to the last bit, and act'(g) 1 or 0, where e^|g| or g^3 is no number any more."""
    gate = torch.tensor([[800, 5e4, 1e20, 3e38, -800, -5e4, -1e20, -3e38]], dtype=dtype)
    grad, up = torch.full_like(gate, 0.5), torch.full_like(gate, 3.0)
    of_gate, of_up = GATED[instructions](grad, gate, up, activation)
    assert of_gate.tolist() == [[1.5] * 4 + [0] * 4]
    assert torch.equal(of_up, gate.clamp(min=0) / 2)


@every_set
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_to_the_nearest(instructions: str, dtype: torch.dtype) -> None:
    """Every number, times some: exact in float32, where the derivative is 1; as torch rounds it."""
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(dtype)
    up = numbers[None].expand(6, -1)
    grad = torch.tensor([1, -1.5, 0.0117, 255, 2.0**-10, 2.0**-20], dtype=dtype)[:, None].expand_as(up)
    found, _ = GATED[instructions](grad, torch.full_like(up, 100), up, "silu")
    wanted = (grad.float() * up.float()).to(dtype)
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(found.nan_to_num(0).view(torch.int16), wanted.nan_to_num(0).view(torch.int16))


@every_set
def test_a_row_of_zeros_has_the_gradient_of_eps_alone(instructions: str) -> None:
    x, grad, scale = torch.zeros(2, 65), torch.full((2, 65), 2.0), torch.full((65,), 3.0)
    assert torch.equal(NORMS[instructions](x, grad, scale, 0.25), torch.full((2, 65), 12.0))
    assert torch.equal(NORMS[instructions](x, grad, scale, 0.25, None, True), torch.zeros(2, 65))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_nothing_is_made_of_nothing(shape: tuple[int, int]) -> None:
    x = torch.ones(shape)
    assert cpp_tail.norm_vjp(x, x, x.new_ones(shape[1]), 1e-6).shape == shape
    assert all(found.shape == shape for found in cpp_tail.gated_vjp(x, x, x, "silu"))


def test_results_are_float64_if_anything_is() -> None:
    half, single, double = (torch.ones(2, 3, dtype=d) for d in (torch.float16, torch.float32, torch.float64))
    for x, grad, residual in ((half, half, double), (double, half, single), (single, double, None)):
        for backend in ("torch", "cpp"):
            found = vjp.norm_vjp(x, grad, torch.ones(3), 1e-6, residual, backend=backend)
            assert found.dtype == torch.float64
    assert vjp.norm_vjp(half, half, torch.ones(3).double(), 1e-6, single).dtype == torch.float32


def test_a_scale_may_be_of_any_kind() -> None:
    given = norm_problem(NORM | {"width": 16})
    scale = given.scale.bfloat16()
    expected = cpp_tail.norm_vjp(given.x, given.grad, scale.float(), given.eps)
    spread = torch.full((32,), torch.nan, dtype=torch.bfloat16)[::2].copy_(scale)
    for other in (scale, scale.double(), spread):
        assert torch.equal(cpp_tail.norm_vjp(given.x, given.grad, other, given.eps), expected)


def test_a_sign_that_torch_has_put_off_is_not_forgotten() -> None:
    """The imaginary part of a conjugate is a view of memory that holds its negative."""
    norm, product = norm_problem(NORM), gated_problem(PRODUCT)
    for given, run in ((norm, cpp_tail.norm_vjp), (product, cpp_tail.gated_vjp)):
        wanted = run(*given.arguments)
        for argument, x in vars(given).items():
            if isinstance(x, torch.Tensor):
                put_off = torch.complex(x, -x).conj().imag
                assert put_off.is_neg()
                found = run(*(vars(given) | {argument: put_off}).values())
                assert all(map(torch.equal, found, wanted)), argument


# Which backend takes them


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A name for every call of the extension."""
    calls: list[str] = []

    def counted(operation: str) -> Callable[..., Any]:
        original = getattr(cpp_tail, operation)
        return lambda *given: calls.append(operation) or original(*given)  # type: ignore[func-returns-value]

    for operation in ("norm_vjp", "gated_vjp"):
        monkeypatch.setattr(cpp_tail, operation, counted(operation))
    return calls


@pytest.mark.parametrize(("backend", "calls"), [("auto", 2), ("cpp", 2), ("torch", 0)])
def test_the_backend_is_the_one_of_the_plan(backend: str, calls: int, taken: list[str]) -> None:
    norm, product = norm_problem(NORM), gated_problem(PRODUCT)
    check_norm(vjp.norm_vjp(*norm.arguments[:5], backend=backend), norm)
    check_gated(vjp.gated_vjp(*product.arguments, backend=backend), product, by_torch=True)
    assert len(taken) == calls


def test_activations_without_a_kernel_are_left_to_torch(monkeypatch: pytest.MonkeyPatch, taken: list[str]) -> None:
    monkeypatch.setitem(vjp.ACTIVATIONS, "double", (lambda x: 2 * x, lambda grad, x: 2 * grad))
    found = vjp.gated_vjp(torch.full((1, 1), 3.0), torch.full((1, 1), 5.0), torch.full((1, 1), 7.0), "double")
    assert [x.item() for x in found] == [42, 30]
    assert not taken


# As operators


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch wants results without margins."""
    monkeypatch.setattr(cpp_tail, "empty_norm", empty_norm)
    monkeypatch.setattr(cpp_tail, "empty_gated", empty_gated)


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_operators_are_registered_as_torch_wants_them(dtype: torch.dtype) -> None:
    for residual in ("none", "summed"):
        given = norm_problem(NORM | {"dtypes": (dtype, dtype), "residual": residual, "layout": "apart"})
        torch.library.opcheck(tail_operators.norm_vjp, given.arguments, raise_exception=True)
    product = gated_problem(PRODUCT | {"dtype": dtype, "layout": "transposed"})
    torch.library.opcheck(tail_operators.gated_vjp, product.arguments, raise_exception=True)


@pytest.mark.usefixtures("unguarded")
def test_a_compiled_function_calls_the_operators() -> None:
    norm, product = norm_problem(NORM), gated_problem(PRODUCT)

    def both(norm: tuple[Any, ...], product: tuple[Any, ...]) -> torch.Tensor:
        return tail_operators.norm_vjp(*norm).sum() + tail_operators.gated_vjp(*product)[0].sum()

    compiled = torch.compile(both, backend="eager", fullgraph=True)
    assert torch.equal(compiled(norm.arguments, product.arguments), both(norm.arguments, product.arguments))


# What is refused


ROWS = torch.ones(3, 4)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "another width": (lambda: cpp_tail.norm_vjp(ROWS, torch.ones(3, 5), torch.ones(4), 1.0), "one shape"),
    "a residual of other rows": (
        lambda: cpp_tail.norm_vjp(ROWS, ROWS, torch.ones(4), 1.0, torch.ones(2, 4)),
        "one shape",
    ),
    "three axes": (lambda: cpp_tail.norm_vjp(ROWS[None], ROWS[None], torch.ones(3, 4), 1.0), "one shape"),
    "a scale of other rows": (lambda: cpp_tail.norm_vjp(ROWS, ROWS, torch.ones(3), 1.0), "scale of 4 features"),
    "a scale elsewhere": (lambda: cpp_tail.norm_vjp(ROWS, ROWS, torch.ones(4, device="meta"), 1.0), "on meta"),
    "whole numbers": (lambda: cpp_tail.norm_vjp(ROWS.int(), ROWS, torch.ones(4), 1.0), "not torch.int32"),
    "another device": (lambda: cpp_tail.norm_vjp(ROWS, ROWS.to("meta"), torch.ones(4), 1.0), "on meta"),
    "gates of another width": (lambda: cpp_tail.gated_vjp(ROWS, torch.ones(3, 5), ROWS, "silu"), "one shape"),
    "gates of another dtype": (lambda: cpp_tail.gated_vjp(ROWS, ROWS.half(), ROWS, "silu"), "one dtype"),
    "products elsewhere": (lambda: cpp_tail.gated_vjp(ROWS, ROWS, ROWS.to("meta"), "silu"), "on meta"),
    "another activation": (lambda: cpp_tail.gated_vjp(ROWS, ROWS, ROWS, "relu"), "silu, gelu_tanh, not 'relu'"),
}


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_memory_that_is_not_there_is_never_read(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


EXTENSION: dict[str, tuple[dict[int, Any], str]] = {
    "a negative size": ({1: (-1, 4)}, "sizes of 0 and more"),
    "no thread": ({10: 0}, "needs a thread"),
    "a gradient of fewer bits": ({0: ("float32", "float16")}, "no kernel for x of float32 and grad of float16"),
    "another type": ({0: ("int8", "int8")}, "knows no int8"),
    "another instruction set": ({9: "avx1024"}, "knows no avx1024"),
}


@pytest.mark.parametrize(("changes", "words"), EXTENSION.values(), ids=EXTENSION.keys())
def test_the_extension_itself_refuses_what_cannot_be(changes: dict[int, Any], words: str) -> None:
    """Addresses it must believe."""
    nothing = (0, 0)
    arguments = [("float32", "float32"), (0, 0), nothing, nothing, 0, nothing, 1.0, False, 0, "portable", 1]
    _C.norm_vjp(*arguments)
    for index, argument in changes.items():
        arguments[index] = argument
    with pytest.raises(ValueError, match=words):
        _C.norm_vjp(*arguments)


def test_the_extension_knows_the_activations_that_are_said_to_be_known() -> None:
    nothing = (0, 0)
    for activation in cpp_tail.ACTIVATIONS:
        _C.gated_vjp("float32", activation, (0, 0), nothing, nothing, nothing, nothing, "portable", 1)
    with pytest.raises(ValueError, match="knows no relu"):
        _C.gated_vjp("float32", "relu", (0, 0), nothing, nothing, nothing, nothing, "portable", 1)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """The C++ alone, under AddressSanitizer and UndefinedBehaviorSanitizer, on arrays of exactly their size."""
    sources = [*(ROOT / "csrc" / "cpu").glob("*.cpp"), ROOT / "tests" / "support" / "sanitized_tail.cpp"]
    flags = ["-std=c++17", "-O1", "-g", "-fopenmp", "-Wno-psabi", "-fsanitize=address,undefined"]
    program = tmp_path / "sanitized_tail"
    command = ["g++", *flags, "-fno-sanitize-recover=all", f"-I{ROOT / 'csrc'}", *map(str, sources)]
    subprocess.run([*command, "-o", str(program)], check=True)
    subprocess.run([str(program)], check=True, timeout=120)
