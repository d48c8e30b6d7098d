"""The layer tail's element-wise steps on the C++ backend: csrc/cpu/tail.h on torch tensors.

It checks what must hold before their addresses are read, and no more: every layer calls it several times.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dexar_fast.backends.cpp import best_instruction_set
from dexar_fast.errors import InputError

NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
ACTIVATIONS = ("silu", "gelu_tanh")


def norm_vjp(
    x: Tensor,
    grad: Tensor,
    scale: Tensor,
    eps: float,
    residual: Tensor | None = None,
    centred: bool = False,
    instructions: str | None = None,
) -> Tensor:
    """`tail_operators.norm_vjp` on the CPU, by csrc/cpu/tail.h, on torch's number of threads.

    Args:
        instructions: one of `cpp.INSTRUCTION_SETS`; None is the best this CPU has.
    Raises:
        InputError: arguments that do not fit each other.
    """
    from dexar_fast import _C

    _check(x, grad) if residual is None else _check(x, grad, residual)
    if scale.shape != x.shape[1:] or scale.device.type != "cpu":
        raise InputError(f"the scale of {x.shape[1]} features on the CPU is no {list(scale.shape)} on {scale.device}")
    out = empty_norm(x, grad, residual)
    if out.dtype == torch.float64:
        x = x.to(torch.float64)
    if grad.dtype != x.dtype:
        grad = grad.to(out.dtype)
    x, grad, scale = _in_rows(x), _in_rows(grad), scale.to(out.dtype).resolve_neg().contiguous()
    residual = None if residual is None else _in_rows(residual.to(out.dtype))
    _C.norm_vjp(
        (NAMES[x.dtype], NAMES[grad.dtype]),
        x.shape,
        _strided(x),
        _strided(grad),
        scale.data_ptr(),
        (0, 0) if residual is None else _strided(residual),
        eps,
        centred,
        out.data_ptr(),
        instructions or best_instruction_set(),
        torch.get_num_threads(),
    )
    return out


def gated_vjp(
    grad: Tensor, gate: Tensor, up: Tensor, activation: str, instructions: str | None = None
) -> tuple[Tensor, Tensor]:
    """`tail_operators.gated_vjp` on the CPU, as `norm_vjp`.

    Raises:
        InputError: arguments that do not fit each other, or another activation than ACTIVATIONS.
    """
    from dexar_fast import _C

    _check(gate, grad, up)
    if not grad.dtype == gate.dtype == up.dtype:
        raise InputError(f"dz, g and p are of one dtype, not {grad.dtype}, {gate.dtype} and {up.dtype}")
    if activation not in ACTIVATIONS:
        raise InputError(f"backend 'cpp' has the activations {', '.join(ACTIVATIONS)}, not {activation!r}")
    grad, gate, up = _in_rows(grad), _in_rows(gate), _in_rows(up)
    grad_gate, grad_up = empty_gated(gate)
    _C.gated_vjp(
        NAMES[gate.dtype],
        activation,
        gate.shape,
        _strided(grad),
        _strided(gate),
        _strided(up),
        (grad_gate.data_ptr(), grad_up.data_ptr()),
        instructions or best_instruction_set(),
        torch.get_num_threads(),
    )
    return grad_gate, grad_up


def empty_norm(x: Tensor, grad: Tensor, residual: Tensor | None) -> Tensor:
    """The uninitialised result of `norm_vjp`: [C, d] in float64 if any of them is, else float32."""
    wide = torch.float64 in (x.dtype, grad.dtype, None if residual is None else residual.dtype)
    return x.new_empty(x.shape, dtype=torch.float64 if wide else torch.float32)


def empty_gated(gate: Tensor) -> tuple[Tensor, Tensor]:
    """The uninitialised results of `gated_vjp`: [C, I] each, dense."""
    return gate.new_empty(gate.shape), gate.new_empty(gate.shape)


def _check(first: Tensor, *others: Tensor) -> None:
    if first.ndim != 2 or any(x.shape != first.shape for x in others):
        raise InputError(f"rows of one shape [C, d] are wanted, not {[list(x.shape) for x in (first, *others)]}")
    for x in (first, *others):
        if x.device.type != "cpu" or x.dtype not in NAMES:
            raise InputError(f"backend 'cpp' works on CPU tensors of {tuple(NAMES)}, not {x.dtype} on {x.device}")


def _in_rows(x: Tensor) -> Tensor:
    """The same numbers, side by side inside each row."""
    x = x.resolve_neg()
    return x if x.stride(1) == 1 else x.contiguous()


def _strided(x: Tensor) -> tuple[int, int]:
    """Address, and stride from row to row."""
    return x.data_ptr(), x.stride(0)
