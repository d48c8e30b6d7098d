"""kernels/tail.py in Triton's interpreter, against the reference: run by test_triton.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import triton.language as tl
from bounded import bound
from dexar_fast.kernels import tail as kernels
from tail_cases import (
    GATED_CASES,
    NORM_CASES,
    GuardedTail,
    check_bad_values,
    check_gated,
    check_norm,
    gated_problem,
    name,
    norm_problem,
)
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle

from dexar_fast import InputError

SINGLE, DOUBLE = torch.float32, torch.float64
FAR = 2**30  # elements: the third row of anything that far apart is out of reach of 32 bits
ROWS = torch.ones(3, 4)


def cast(self: InterpreterBuilder, source: TensorHandle, kind: Any, plain: Any = InterpreterBuilder.cast_impl) -> Any:
    """As a GPU rounds to bfloat16, whose last bits the interpreter cuts off."""
    if (source.dtype.scalar, kind.scalar) != (tl.float32, tl.bfloat16):
        return plain(self, source, kind)
    rounded = torch.from_numpy(source.data).bfloat16().view(torch.int16).numpy()
    return TensorHandle(rounded.view("uint16"), tl.bfloat16)


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Results are poison until they are written, and nothing is written or read beside an array."""
    outputs = GuardedTail()
    outputs.patch(monkeypatch, kernels)
    bound(monkeypatch, kernels.norm_kernel, kernels.gated_kernel)
    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast)
    yield
    outputs.check()


@pytest.mark.parametrize("case", [case for case in NORM_CASES if DOUBLE not in case["dtypes"]], ids=name)
def test_norms_equal_the_reference(case: dict[str, Any]) -> None:
    given = norm_problem(case)
    check_norm(kernels.norm_vjp(*given.arguments), given)


@pytest.mark.parametrize("case", [case for case in GATED_CASES if case["dtype"] != DOUBLE], ids=name)
def test_products_equal_the_reference(case: dict[str, Any]) -> None:
    given = gated_problem(case)
    check_gated(kernels.gated_vjp(*given.arguments), given)


def test_bad_values_reach_all_that_they_enter_and_nothing_else() -> None:
    check_bad_values(kernels.norm_vjp, kernels.gated_vjp)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_gates_beyond_all_exponentials(activation: str) -> None:
    gate = torch.tensor([[800, 5e4, 1e20, 3e38, -800, -5e4, -1e20, -3e38]])
    of_gate, of_up = kernels.gated_vjp(torch.full_like(gate, 0.5), gate, torch.full_like(gate, 3.0), activation)
    assert of_gate.tolist() == [[1.5] * 4 + [0] * 4]
    assert torch.equal(of_up, gate.clamp(min=0) / 2)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_nothing_is_made_of_nothing(shape: tuple[int, int]) -> None:
    x = torch.ones(shape)
    assert kernels.norm_vjp(x, x, x.new_ones(shape[1]), 1e-6).shape == shape
    assert all(found.shape == shape for found in kernels.gated_vjp(x, x, x, "silu"))


@pytest.mark.parametrize("far", [0, 1, 2])
def test_addresses_have_64_bits(far: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gigabytes apart, of which only the pages written are ever there: so the interpreter may not copy them back."""
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *_: None)
    near = list(torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0)).bfloat16())
    given = list(near)
    given[far] = torch.empty(2 * FAR + 4, dtype=torch.bfloat16).as_strided((3, 4), (FAR, 1)).copy_(near[far])
    found, wanted = kernels.gated_vjp(*given, "silu"), kernels.gated_vjp(*near, "silu")
    assert all(map(torch.equal, found, wanted))
    found, wanted = (kernels.norm_vjp(a, b, torch.ones(4), 0.1, c) for a, b, c in (given, near))
    assert torch.equal(found, wanted)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "double precision": (lambda: kernels.norm_vjp(ROWS, ROWS.double(), torch.ones(4), 1.0), "use backend='torch'"),
    "products in double precision": (lambda: kernels.gated_vjp(*[ROWS.double()] * 3, "silu"), "use backend='torch'"),
    "another width": (lambda: kernels.norm_vjp(ROWS, torch.ones(3, 5), torch.ones(4), 1.0), "one shape"),
    "a scale of other rows": (lambda: kernels.norm_vjp(ROWS, ROWS, torch.ones(3), 1.0), "scale of 4 features"),
    "gates of another dtype": (lambda: kernels.gated_vjp(ROWS, ROWS.half(), ROWS, "silu"), "one dtype"),
    "another activation": (lambda: kernels.gated_vjp(ROWS, ROWS, ROWS, "relu"), "use backend='torch' for 'relu'"),
}


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_they_cannot_take_is_refused(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()
