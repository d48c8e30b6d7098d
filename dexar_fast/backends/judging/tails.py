"""The trials of norm_vjp and gated_vjp: rows of a layer's width."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from dexar_fast.backends import reference, tail_operators
from dexar_fast.backends.cpp_tail import ACTIVATIONS
from dexar_fast.backends.judging.trial import Compared, Trial, drawn
from dexar_fast.backends.verdicts.case import Case

EPS = torch.finfo(torch.float32).eps
EPSILON = 1e-6  # of the norm
COUNTS = (1, 17)  # rows that are checked


def norms(case: Case) -> Trial:
    """RMSNorm and LayerNorm, with a residual and without; an RMSNorm with one is timed."""
    width, count = case.sizes
    dtype, device = case.torch_dtype, torch.device(case.device)

    def given(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, grad, scale = drawn([(rows, width), (rows, width), (width,)], dtype, device, rows)
        return x, grad, scale, drawn([(rows, width)], torch.float32, device, rows + 1)[0]

    def checks() -> Iterator[Compared]:
        for rows, centred, adds in product(COUNTS, (False, True), (False, True)):
            x, grad, scale, residual = given(rows)
            added = residual if adds else None
            exact = [None if each is None else each.cpu().double() for each in (x, grad, scale, added)]
            yield _norm_compared(tail_operators.norm_vjp(x, grad, scale, EPSILON, added, centred), exact, centred)

    x, grad, scale, residual = given(count)
    kernel = partial(tail_operators.norm_vjp, x, grad, scale, EPSILON, residual)
    return Trial(kernel, partial(_plain_norm, x, grad, scale, residual), checks)


def _norm_compared(found: Tensor, exact: list[Tensor | None], centred: bool) -> Compared:
    """Sums of d terms in any order: (d + 20) eps of what is added up, three times with a mean taken away."""
    x, grad, scale, residual = exact
    assert x is not None and grad is not None and scale is not None
    wanted = reference.norm_vjp(x, grad, scale, EPSILON, residual, centred=centred)
    y = x - x.mean(-1, keepdim=True) if centred else x
    inverse = torch.rsqrt(y.square().mean(-1, keepdim=True) + EPSILON)
    v = (grad * scale).abs()
    along = (y.abs() * v).mean(-1, keepdim=True) * inverse.square()
    sizes = inverse * (v + v.mean(-1, keepdim=True) + y.abs() * along)
    sizes = sizes if residual is None else sizes + residual.abs()
    return Compared(found, wanted, (3 if centred else 1) * (x.shape[1] + 20) * EPS * sizes)


def _plain_norm(x: Tensor, grad: Tensor, scale: Tensor, residual: Tensor) -> Tensor:
    """As `tails.vjp` has it of torch's operators."""
    x, v = x.float(), grad * scale.float()
    inverse = torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON)
    normed = x * inverse
    return (v - normed * (normed * v).mean(-1, keepdim=True)) * inverse + residual


def gates(case: Case) -> Trial:
    """Each activation; SiLU is timed."""
    width, count = case.sizes

    def given(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        grad, gate, up = drawn([(rows, width)] * 3, case.torch_dtype, torch.device(case.device), rows)
        return grad, gate, up

    def checks() -> Iterator[Compared]:
        for rows, activation in product(COUNTS, ACTIVATIONS):
            some = given(rows)
            yield from _gates_compared(tail_operators.gated_vjp(*some, activation), some, activation)

    large = given(count)
    return Trial(partial(tail_operators.gated_vjp, *large, "silu"), partial(_plain_gate, *large), checks)


def _gates_compared(
    found: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor, Tensor], activation: str
) -> Iterator[Compared]:
    """Two roundings of the result, and those of an exponential and a few operations on the way."""
    grad, gate, up = (each.cpu().double() for each in given)
    eps = 2 * torch.finfo(given[0].dtype).eps + 64 * EPS
    sizes = (grad * up).abs(), (grad * gate).abs()
    for some, wanted, size in zip(found, reference.gated_vjp(grad, gate, up, activation), sizes, strict=True):
        yield Compared(some, wanted, eps * wanted.abs() + 64 * EPS * size)


def _plain_gate(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """As `tails.vjp` has it of torch's operators."""
    return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)
