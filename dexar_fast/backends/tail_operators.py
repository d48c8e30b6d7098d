"""The element-wise steps of the layer-tail VJP as torch.library operators, as in `operators`.

    dexar_fast::norm_vjp     residual + norm'(x)^T grad, of norm(x) = scale y / sqrt(mean(y^2) + eps)
    dexar_fast::gated_vjp    act'(g) p dz and act(g) dz, of z = act(g) * p

An operator has one kernel for each device: C++ on the CPU, Triton on a GPU. The products between them are torch's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dexar_fast.backends import cpp_tail

_NORM = "(Tensor x, Tensor grad, Tensor scale, float eps, Tensor? residual=None, bool centred=False) -> Tensor"
_GATED = "(Tensor grad, Tensor gate, Tensor up, str activation) -> (Tensor, Tensor)"


@torch.library.custom_op("dexar_fast::norm_vjp", mutates_args=(), device_types="cpu", schema=_NORM)
def norm_vjp(
    x: Tensor, grad: Tensor, scale: Tensor, eps: float, residual: Tensor | None = None, centred: bool = False
) -> Tensor:
    """`tails.vjp.norm_vjp` in one pass over memory.

    With C rows of d features, elements of b bytes in x and grad and of B = 4 (8 in float64) in what is summed: reads
    2 C d b of x and grad, C d B of the residual and d B of scale, which stays in the cache; writes C d B. About 12 C d
    operations; if centred 15 C d, and one more read of each row from the cache. A row that is not contiguous is copied
    first.

    Args:
        x, grad, residual: [C, d] in float32, float64, bfloat16 or float16, alike or not. scale: [d].
    Returns:
        [C, d] in float64 if any of x, grad and residual is, else float32.
    """
    return cpp_tail.norm_vjp(x, grad, scale, eps, residual, centred)


@norm_vjp.register_kernel("cuda")
def _(*arguments: Any) -> Tensor:
    from dexar_fast.kernels import tail as triton_kernels  # if triton is missing, backends.plan has raised

    return triton_kernels.norm_vjp(*arguments)


@norm_vjp.register_fake
def _(
    x: Tensor, grad: Tensor, scale: Tensor, eps: float, residual: Tensor | None = None, centred: bool = False
) -> Tensor:
    return cpp_tail.empty_norm(x, grad, residual)


@torch.library.custom_op("dexar_fast::gated_vjp", mutates_args=(), device_types="cpu", schema=_GATED)
def gated_vjp(grad: Tensor, gate: Tensor, up: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """`vjp.gated_vjp` in one pass over memory.

    With C rows of I features of b bytes: reads 3 C I b and writes 2 C I b. An exponential, a division and about 12
    operations an element with "silu", about 24 with "gelu_tanh"; half precision is rounded once, on its way out.

    Args:
        grad, gate, up: [C, I] of one dtype, float32, float64, bfloat16 or float16.
        activation: one of `cpp_tail.ACTIVATIONS`.
    Returns:
        With respect to g and to p, [C, I] each of that dtype, dense.
    """
    return cpp_tail.gated_vjp(grad, gate, up, activation)


@gated_vjp.register_kernel("cuda")
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    from dexar_fast.kernels import tail as triton_kernels

    return triton_kernels.gated_vjp(*arguments)


@gated_vjp.register_fake
def _(grad: Tensor, gate: Tensor, up: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    return cpp_tail.empty_gated(gate)
