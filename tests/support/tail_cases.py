"""Problems for the element-wise steps of the layer-tail VJP (`vjp`), and what every backend must make of them.

Bounds, to first order, with eps of the arithmetic: float32's for all but float64. A sum of d terms is off by at most
d eps sum |term|, an exponential of z by ten eps of itself and as much again as z is off by. Errors follow the equations
of `vjp.norm_vjp` and of the two activations step by step. Results of half precision are rounded once: they lie between
what the ends of the interval are rounded to, whatever that overflows to or loses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from kernel_cases import Guarded
from pairwise import pairwise
from torch import Tensor

from dexar_fast.backends import reference
from dexar_fast.backends.cpp_tail import empty_gated, empty_norm

SINGLE, DOUBLE, BRAIN, HALF = torch.float32, torch.float64, torch.bfloat16, torch.float16
SIZES: dict[str, list[Any]] = {"rows": [1, 3, 64, 130], "width": [1, 16, 63, 500, 1025, 4096]}
LAYOUTS = ["dense", "apart", "offset", "transposed"]
NORM_AXES: dict[str, list[Any]] = {
    **SIZES,
    "dtypes": [(SINGLE, SINGLE), (DOUBLE, DOUBLE), (BRAIN, BRAIN), (BRAIN, SINGLE), (HALF, HALF), (HALF, SINGLE),
               (SINGLE, BRAIN), (BRAIN, HALF), (HALF, DOUBLE)],  # of x and grad
    "centred": [False, True],
    "residual": ["none", "summed", "as x"],
    "layout": LAYOUTS,
    "values": ["normal", "large", "small", "shifted", "zeros"],
    "eps": [1e-6, 0.1],
}  # fmt: skip
GATED_AXES: dict[str, list[Any]] = {
    **SIZES,
    "dtype": [SINGLE, DOUBLE, BRAIN, HALF],
    "activation": ["silu", "gelu_tanh"],
    "layout": LAYOUTS,
    "values": ["normal", "wide", "zeros"],
}
HARD: list[dict[str, Any]] = [  # beside the pairs: what lies behind the last feature must not enter a mean
    {**dict.fromkeys(NORM_AXES), "rows": 3, "width": width, "dtypes": dtypes, "centred": True, "residual": "none",
     "layout": "apart", "values": "shifted", "eps": 1e-6}
    for width in (3, 63, 500) for dtypes in ((SINGLE, SINGLE), (BRAIN, SINGLE), (HALF, HALF))
]  # fmt: skip
NORM_CASES, GATED_CASES = [*pairwise(NORM_AXES), *HARD], pairwise(GATED_AXES)
FLUSHED = 1e-37  # a number this small may be 0
DOUBLE_EPS = torch.finfo(DOUBLE).eps
BENT = 1e3  # of x dz/dx where tanh is not 1 to the last bit in any arithmetic


def name(case: dict[str, Any]) -> str:
    return "-".join(str(value).replace("torch.", "").replace(" ", "") for value in case.values())


@dataclass(frozen=True)
class NormProblem:
    """The arguments of one call of `vjp.norm_vjp`."""

    x: Tensor
    grad: Tensor
    scale: Tensor
    eps: float
    residual: Tensor | None
    centred: bool

    @property
    def arguments(self) -> tuple[Any, ...]:
        return tuple(vars(self).values())

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic and the result."""
        return DOUBLE if DOUBLE in (self.x.dtype, self.grad.dtype) else SINGLE

    def wanted(self) -> tuple[Tensor, Tensor]:
        """The result [C, d] in float64, and what it may be off by."""
        x, grad, scale = self.x.double(), self.grad.double(), self.scale.double()
        residual = torch.zeros_like(x) if self.residual is None else self.residual.double()
        found = reference.norm_vjp(x, grad, scale, self.eps, residual, centred=self.centred)
        eps, terms = torch.finfo(self.dtype).eps, x.shape[1] + 4

        def off(terms_of_sum: Tensor, slack: Tensor) -> Tensor:  # of a mean
            return _mean(slack) + terms * eps * _mean(terms_of_sum.abs())

        v, zero = scale * grad, torch.zeros_like(x)
        mean_off = off(x, zero) if self.centred else zero[:, :1]
        y = x - _mean(x) if self.centred else x
        y_off, v_off = mean_off + eps * y.abs(), eps * v.abs()
        square = y.square()
        power = _mean(square) + self.eps
        s = power.rsqrt()
        s_off = (off(square, 2 * y.abs() * y_off) / power / 2 + 4 * eps) * s
        b, b_off = _mean(y * v), off(y * v, v.abs() * y_off + y.abs() * v_off)
        a, a_off = b * s * s, b_off * s * s + b.abs() * s * (2 * s_off + 4 * eps * s)
        parts = v.abs() + (y * a).abs()
        slack = v_off + y.abs() * a_off + a.abs() * y_off + 4 * eps * parts
        slack = slack * s + parts * s_off
        if self.centred:
            slack = slack + off(parts * s, slack)
        return found, 1.1 * (slack + eps * (found.abs() + residual.abs())) + FLUSHED


def _mean(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)


@dataclass(frozen=True)
class GatedProblem:
    """The arguments of one call of `vjp.gated_vjp`."""

    grad: Tensor
    gate: Tensor
    up: Tensor
    activation: str

    @property
    def arguments(self) -> tuple[Any, ...]:
        return tuple(vars(self).values())

    def wanted(self, eps: float, cancelled: float = DOUBLE_EPS) -> list[tuple[Tensor, Tensor]]:
        """The two results in float64, and what they may be off by before they are rounded.

        cancelled: eps of the arithmetic that takes 1 + tanh, the reference's at least, which loses what is far from 1.
        """
        dz, x, p = self.grad.double(), self.gate.double(), self.up.double()
        z, z_off, slope = _silu_exponent(x) if self.activation == "silu" else _gelu_exponent(x)
        s, rest = torch.sigmoid(z), torch.sigmoid(-z)
        s_off = (10 + z_off) * eps * s + 4 * cancelled + FLUSHED
        act_off = x.abs() * s_off
        bent = (x * s * rest * slope).abs() * (30 + 3 * z_off) * eps
        lost = (x * slope).abs().clamp(max=BENT) * (4 * cancelled + FLUSHED)
        slope_off = s_off + bent + lost
        results = reference.gated_vjp(dz, x, p, self.activation)
        slacks = slope_off * (p * dz).abs(), act_off * dz.abs()
        return [(w, off + 4 * eps * w.abs() + FLUSHED) for w, off in zip(results, slacks, strict=True)]


def _silu_exponent(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z with act(x) = x / (1 + e^-z), what it may be off by in eps, and dz/dx."""
    return x, torch.zeros_like(x), torch.ones_like(x)


def _gelu_exponent(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    k = 2 * math.sqrt(2 / math.pi)
    z = k * (x + 0.044715 * x**3)
    return z, 4 * z.abs(), k * (1 + 3 * 0.044715 * x**2)


def norm_problem(case: dict[str, Any], seed: int = 0) -> NormProblem:
    generator = torch.Generator().manual_seed(seed)
    shape = case["rows"], case["width"]
    of_x, of_grad = case["dtypes"]
    x = _x(case["values"], shape, of_x, generator)
    grad, rest = (torch.randn(shape, generator=generator, dtype=DOUBLE) for _ in range(2))
    scale = torch.randn(shape[1], generator=generator)
    summed = DOUBLE if DOUBLE in case["dtypes"] else SINGLE
    residual = {"none": None, "summed": rest.to(summed), "as x": rest.to(of_x)}[case["residual"]]
    x, grad = (laid(rows, case["layout"]) for rows in (x, grad.to(of_grad)))
    residual = None if residual is None else laid(residual, case["layout"])
    return NormProblem(x, grad, scale, case["eps"], residual, case["centred"])


def _x(kind: str, shape: tuple[int, int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """large: its squares are near the largest numbers; small: eps outweighs them; shifted: about a mean of 10."""
    drawn = torch.randn(shape, generator=generator, dtype=DOUBLE)
    largest = 1e4 if dtype == HALF else 1e15
    factor = {"normal": 1.0, "large": largest, "small": 1e-4, "shifted": 1.0, "zeros": 0.0}[kind]
    return (drawn * factor + (10 if kind == "shifted" else 0)).to(dtype)


def gated_problem(case: dict[str, Any], seed: int = 0) -> GatedProblem:
    """wide: gates whose exponentials are beyond float32, and still within float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = case["rows"], case["width"]
    grad, gate, up = (torch.randn(shape, generator=generator, dtype=DOUBLE) for _ in range(3))
    gate = gate * {"normal": 3, "wide": 150, "zeros": 0}[case["values"]]
    grad, gate, up = (laid(x.to(case["dtype"]), case["layout"]) for x in (grad, gate.clamp(-600, 600), up))
    return GatedProblem(grad, gate, up, case["activation"])


def laid(x: Tensor, layout: str) -> Tensor:
    """The same rows in another place, with NaN around them. apart: with room between; transposed: across memory."""
    rows, width = x.shape
    if layout == "transposed":
        return x.T.contiguous().T
    room = {"dense": 0, "apart": 5, "offset": 0}[layout]
    first = 1 if layout == "offset" else 0
    memory = torch.full((rows * (width + room) + first,), torch.nan, dtype=x.dtype)
    return memory[first:].view(rows, width + room)[:, :width].copy_(x)


class GuardedTail(Guarded):
    """Results of both operations that are NaN until they are written, with margins around them."""

    def patch(self, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
        """Has a module take them for its own."""
        monkeypatch.setattr(module, "empty_norm", lambda *given: self._guard(empty_norm(*given)))
        monkeypatch.setattr(module, "empty_gated", lambda gate: tuple(map(self._guard, empty_gated(gate))))


def check_norm(found: Tensor, given: NormProblem) -> None:
    wanted, slack = given.wanted()
    assert found.dtype == given.dtype
    assert found.shape == wanted.shape
    assert ((found.double() - wanted).abs() <= slack).all()


def check_gated(found: tuple[Tensor, Tensor], given: GatedProblem, by_torch: bool = False) -> None:
    """Compares with the reference; by_torch: rounded to half precision between any two steps."""
    dtype = given.gate.dtype
    eps = torch.finfo(dtype if by_torch else torch.promote_types(dtype, SINGLE)).eps
    for result, (wanted, slack) in zip(found, given.wanted(eps, eps if by_torch else DOUBLE_EPS), strict=True):
        assert (result.dtype, result.shape) == (dtype, wanted.shape)
        low, high = ((wanted + side).to(dtype) for side in (-slack, slack))
        assert ((low <= result) & (result <= high)).all()


Norm = Callable[..., Tensor]
Gated = Callable[..., tuple[Tensor, Tensor]]


def check_bad_values(norm: Norm, gated: Gated, dtype: torch.dtype = SINGLE) -> None:
    """NaN and infinity reach all of their row in a norm, their own element of a product, and nothing else."""
    case = {"rows": 5, "width": 70, "dtypes": (dtype, dtype), "centred": True, "residual": "summed", "layout": "dense",
            "values": "normal", "eps": 1e-6, "dtype": dtype, "activation": "silu"}  # fmt: skip
    for bad in (torch.nan, torch.inf):
        for argument in ("x", "grad"):
            given = norm_problem(case)
            clean = norm(*given.arguments)
            getattr(given, argument)[3, 65] = bad
            found = norm(*given.arguments)
            others = [0, 1, 2, 4]
            assert torch.equal(found[others], clean[others])
            assert not found[3].isfinite().any()
        for argument in ("grad", "gate", "up"):
            for activation in ("silu", "gelu_tanh"):
                product = gated_problem(case | {"activation": activation})
                before = gated(*product.arguments)
                getattr(product, argument)[3, 65] = bad
                for result, (wanted, after) in enumerate(zip(before, gated(*product.arguments), strict=True)):
                    reached = (after != wanted) | after.isnan()
                    assert reached.sum() == (argument != "up" or result == 0), (argument, result)
                    assert not (reached & (after.isfinite() & (argument != "gate"))).any()
                    assert bad == bad or after[reached].isnan().all()
