"""The element-wise steps of the layer-tail VJP on a GPU (`tail_operators`); the products between them are torch's.

    norm_vjp:   s = 1 / sqrt(mean(y^2) + eps), y = x or x - mean(x);  v = scale grad;  a = s^2 mean(y v)
                residual + s (v - y a), with v minus its mean if centred, which takes the result's own mean away
    gated_vjp:  act'(g) p dz and act(g) dz

A program holds a whole row of the norm in registers, so that x, grad and the residual are read once. Nothing is summed
across programs, so results are the same in every run. With C rows of d or I features of b bytes:

    norm_vjp    12 C d operations, 15 if centred; reads 2 C d b, 4 C d of the residual and d b of the scale, which stays
                in the L2 cache; writes 4 C d bytes
    gated_vjp   12 C I operations and as many exponentials as elements, 24 with gelu_tanh; reads 3 C I b, writes 2 C I b
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv, next_power_of_2

from dexar_fast.backends.cpp_tail import ACTIVATIONS, empty_gated, empty_norm
from dexar_fast.errors import InputError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BLOCK = 1024  # features of a product that a program takes
EACH = 16  # features of a norm that a thread holds
MOST_WARPS = 16
GELU_LINEAR, GELU_CUBIC = tl.constexpr(1.5957691216057308), tl.constexpr(1.5957691216057308 * 0.044715)
GELU_LIMIT = tl.constexpr(32.0)


@triton.jit
def norm_kernel(
    x_ptr, grad_ptr, scale_ptr, residual_ptr, out_ptr, eps, stride_x, stride_grad, stride_residual,
    WIDTH: tl.constexpr, CENTRED: tl.constexpr, HAS_RESIDUAL: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One row."""
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK_D)
    mask = offs < WIDTH
    y = tl.load(x_ptr + row * stride_x + offs, mask=mask, other=0).to(tl.float32)
    v = tl.load(grad_ptr + row * stride_grad + offs, mask=mask, other=0).to(tl.float32)
    v *= tl.load(scale_ptr + offs, mask=mask, other=0).to(tl.float32)
    if CENTRED:
        y = tl.where(mask, y - tl.sum(y, axis=0) / WIDTH, 0.0)
    inverse = 1 / tl.sqrt(tl.sum(y * y, axis=0) / WIDTH + eps)
    along = tl.sum(y * v, axis=0) / WIDTH * inverse * inverse
    if CENTRED:
        v -= tl.sum(v, axis=0) / WIDTH
    found = (v - y * along) * inverse
    if HAS_RESIDUAL:
        found += tl.load(residual_ptr + row * stride_residual + offs, mask=mask, other=0)
    tl.store(out_ptr + row * WIDTH + offs, found, mask=mask)


@triton.jit
def _logistic(z):
    """1 / (1 + e^-z), by an exponential that is at most 1."""
    power = tl.exp(-tl.abs(z))
    larger = 1 / (1 + power)
    return tl.where(z < 0, power * larger, larger)


@triton.jit
def _silu(x):
    """x / (1 + e^-x) and its derivative."""
    s = _logistic(x)
    return x * s, s + x * s * (1 - s)


@triton.jit
def _gelu_tanh(x):
    """GELU by tanh, x / (1 + e^-z), and its derivative; beyond +-32 that is 0 or x, and x^3 need not be finite."""
    near = tl.where(x > GELU_LIMIT, GELU_LIMIT, tl.where(x < -GELU_LIMIT, -GELU_LIMIT, x))
    square = near * near
    s = _logistic(near * (GELU_LINEAR + GELU_CUBIC * square))
    return x * s, s + x * s * (1 - s) * (GELU_LINEAR + 3 * GELU_CUBIC * square)


@triton.jit
def gated_kernel(
    grad_ptr, gate_ptr, up_ptr, grad_gate_ptr, grad_up_ptr, width, stride_grad, stride_gate, stride_up,
    SILU: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    """BLOCK_I features of a row."""
    row = tl.program_id(0).to(tl.int64)
    offs = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)
    mask = offs < width
    dz = tl.load(grad_ptr + row * stride_grad + offs, mask=mask, other=0).to(tl.float32)
    gate = tl.load(gate_ptr + row * stride_gate + offs, mask=mask, other=0).to(tl.float32)
    up = tl.load(up_ptr + row * stride_up + offs, mask=mask, other=0).to(tl.float32)
    value, slope = _silu(gate) if SILU else _gelu_tanh(gate)
    out = row * width + offs
    tl.store(grad_gate_ptr + out, (slope * (up * dz)).to(grad_gate_ptr.dtype.element_ty), mask=mask)
    tl.store(grad_up_ptr + out, (value * dz).to(grad_up_ptr.dtype.element_ty), mask=mask)


def warps_for(width: int) -> int:
    """The warps of a norm: EACH features a thread, up to MOST_WARPS."""
    return max(1, min(MOST_WARPS, next_power_of_2(width) // (32 * EACH)))


def norm_vjp(
    x: Tensor, grad: Tensor, scale: Tensor, eps: float, residual: Tensor | None = None, centred: bool = False
) -> Tensor:
    """`tail_operators.norm_vjp` on the device of its arguments, in float32 whatever their dtype.

    Raises:
        InputError: a dtype other than float32, bfloat16 and float16.
    """
    given = (x, grad) if residual is None else (x, grad, residual)
    _check(*given)
    if scale.shape != x.shape[1:]:
        raise InputError(f"the scale of {x.shape[1]} features is no {list(scale.shape)}")
    out = empty_norm(x, grad, residual)
    if out.numel() == 0:
        return out
    x, grad, scale = _in_rows(x), _in_rows(grad), scale.contiguous()
    added = x if residual is None else _in_rows(residual)
    rows, width = x.shape
    with torch.cuda.device_of(x):  # Triton launches on the current device
        norm_kernel[(rows,)](
            x, grad, scale, added, out, eps, x.stride(0), grad.stride(0), added.stride(0), WIDTH=width,
            CENTRED=centred, HAS_RESIDUAL=residual is not None, BLOCK_D=next_power_of_2(width),
            num_warps=warps_for(width),
        )  # fmt: skip
    return out


def gated_vjp(grad: Tensor, gate: Tensor, up: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """`tail_operators.gated_vjp`, as `norm_vjp`.

    Raises:
        InputError: another dtype, or another activation than `cpp_tail.ACTIVATIONS`.
    """
    _check(gate, grad, up)
    if not grad.dtype == gate.dtype == up.dtype:
        raise InputError(f"dz, g and p are of one dtype, not {grad.dtype}, {gate.dtype} and {up.dtype}")
    if activation not in ACTIVATIONS:
        raise InputError(f"the Triton kernels have {', '.join(ACTIVATIONS)}: use backend='torch' for {activation!r}")
    grad, gate, up = _in_rows(grad), _in_rows(gate), _in_rows(up)
    outputs = empty_gated(gate)
    rows, width = gate.shape
    with torch.cuda.device_of(gate):
        gated_kernel[(rows, cdiv(width, BLOCK))](
            grad, gate, up, *outputs, width, grad.stride(0), gate.stride(0), up.stride(0),
            SILU=activation == "silu", BLOCK_I=BLOCK,
        )  # fmt: skip
    return outputs


def _check(first: Tensor, *others: Tensor) -> None:
    if first.ndim != 2 or any(x.shape != first.shape for x in others):
        raise InputError(f"rows of one shape [C, d] are wanted, not {[list(x.shape) for x in (first, *others)]}")
    for x in (first, *others):
        if x.dtype not in DTYPES:
            raise InputError(f"the Triton kernels take {DTYPES}: use backend='torch' for {x.dtype}")
        if x.device != first.device:
            raise InputError(f"rows lie on {first.device} and on {x.device}")


def _in_rows(x: Tensor) -> Tensor:
    x = x.resolve_neg()
    return x if x.stride(1) == 1 else x.contiguous()
