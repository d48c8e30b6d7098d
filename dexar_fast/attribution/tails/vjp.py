"""The element-wise steps of the layer-tail VJP, between its matrix products (`tails.block`), on the planned backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dexar_fast.backends import cpp_tail, tail_operators
from dexar_fast.backends.plan import judged, tail_step
from dexar_fast.backends.verdicts.case import rows_case


def norm_vjp(
    x: Tensor,
    grad: Tensor,
    scale: Tensor,
    eps: float,
    residual: Tensor | None = None,
    *,
    centred: bool = False,
    backend: str = "auto",
) -> Tensor:
    """residual + norm'(x)^T grad, of norm(x) = scale y / sqrt(mean(y^2) + eps), y = x or, if centred, x - mean(x).

    With v = scale grad, s = 1 / sqrt(mean(y^2) + eps), n = s y:  norm'(x)^T grad = s (v - n mean(n v)), minus its own
    mean if centred (RMSNorm: arXiv 1910.07467; LayerNorm: arXiv 1607.06450).

    Args:
        x, grad: [C, d] of one dtype or two. scale: [d]. residual: [C, d]; None adds nothing.
        backend: as `backends.plan` takes it.
    Returns:
        [C, d] in float64 if any of them is, else float32.
    """
    fused = _fused("norm_vjp", backend, x)
    if fused is None:
        return _norm_vjp(x, grad, scale, eps, residual, centred)
    return fused.norm_vjp(x, grad, scale, eps, residual, centred)


def gated_vjp(
    grad: Tensor, gate: Tensor, up: Tensor, activation: str, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """act'(g) p dz and act(g) dz: the gradients of z = act(g) * p (GLU variants: arXiv 2002.05202).

    Args:
        grad, gate, up: [C, I] dz, g and p of one dtype. activation: a name of ACTIVATIONS.
        backend: as `backends.plan` takes it.
    Returns:
        With respect to g and to p, [C, I] each of that dtype.
    """
    fused = _fused("gated_vjp", backend, gate)
    if fused is None or activation not in cpp_tail.ACTIVATIONS:
        act, backward = ACTIVATIONS[activation]
        return backward(grad * up, gate), act(gate).mul_(grad)
    return fused.gated_vjp(grad, gate, up, activation)


def _fused(op: str, backend: str, x: Tensor) -> Any:
    """The module with x's kernels; None: torch. C++ is called directly: an operator costs as much as a small call."""
    planned = tail_step(backend, x.device.type)
    if planned == "torch" and x.is_cuda and judged(backend, rows_case(op, "triton", x)):
        planned = "triton"
    return {"cpp": cpp_tail, "triton": tail_operators}.get(planned)


def _norm_vjp(x: Tensor, grad: Tensor, scale: Tensor, eps: float, residual: Tensor | None, centred: bool) -> Tensor:
    """In few launches: each is of the order of a small model's products on a GPU."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, grad.dtype), torch.float32)
    normed, inverse = _normed(x.to(dtype), eps, centred)
    v = grad * scale if grad.dtype == dtype else grad.to(dtype).mul_(scale)
    found = torch.addcmul(v, normed, (normed * v).mean(-1, keepdim=True), value=-1)
    if centred:
        found -= found.mean(-1, keepdim=True)
    return found.mul_(inverse) if residual is None else torch.addcmul(residual, found, inverse)


def _normed(x: Tensor, eps: float, centred: bool) -> tuple[Tensor, Tensor]:
    """s y [C, d] and s [C, 1] of x [C, d], each of its dtype."""
    if centred:
        normed, _, inverse = torch.native_layer_norm(x, x.shape[1:], None, None, eps)
        return normed, inverse
    return torch.ops.aten._fused_rms_norm(x, x.shape[1:], None, eps)


Function = Callable[..., Tensor]
ACTIVATIONS: dict[str, tuple[Function, Function]] = {  # act(g), and act'(g) dz from dz and g
    "silu": (F.silu, torch.ops.aten.silu_backward),
    "gelu_tanh": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda grad, x: torch.ops.aten.gelu_backward(grad, x, approximate="tanh"),
    ),
}
