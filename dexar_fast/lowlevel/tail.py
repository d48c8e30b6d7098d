"""u of one layer from its weights alone, without autograd: a forward of the tail, and its formula back."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear

from dexar_fast.attribution.tails import block as tail_block
from dexar_fast.attribution.tails.vjp import ACTIVATIONS
from dexar_fast.backends.reference import Affine, LayerTail, Norm
from dexar_fast.errors import InputError
from dexar_fast.lowlevel.fitting import check_alike, check_kind, check_shape


def layer_tail_vjp(
    attended: Tensor, residual: Tensor, tail: LayerTail, final: Norm, rows: Tensor, *, backend: str = "auto"
) -> Tensor:
    """u = d o / d a of o = <norm(x), W[v]>, x = tail(a, h): what lies behind one layer's attention, at C positions.

        m = h + n1(o_proj(a));  y = n(m);  z = act(gate(y)) * up(y), or act(up(y));  x = m + n2(down(z))

    Ours (METHOD.md section 2), by the chain rule: RMSNorm arXiv 1910.07467, LayerNorm arXiv 1607.06450, gates arXiv
    2002.05202. Nothing is recorded; `reference.layer_tail_vjp` is the same by autograd, one position at a time.

    Args:
        attended: [C, H D] float32, float64, bfloat16 or float16: a, the attention output of all heads side by side.
        residual: [C, d]: h, the input of the layer. rows: [C, d]: W[v] of each target, times the slope of what the
            model does to the logit (1 unless it caps or scales them).
        tail: the layer's weights, read in place; its activation is "silu" or "gelu_tanh", without a gate also "gelu",
            "relu" or "quick_gelu". final: the norm before the head. All tensors of one dtype, on one device.
        backend: of the element-wise steps: "auto", "torch", "cpp" (CPU) or "triton" (GPU).
    Returns:
        [C, H D] of that dtype; as [C, H, D] it is the u that `score_layer` takes.
    Raises:
        InputError: arguments that do not fit each other. BackendError: a backend that cannot run here.
    """
    _check(attended, residual, tail, final, rows)
    block, last = _block(tail), _norm(final)
    seen, x = _forward(block, attended, residual, tail)
    grad = last.vjp(x, rows, backend=backend)
    return block.vjp(seen, grad.to(rows.dtype), backend)


def _forward(
    block: tail_block.Block, attended: Tensor, residual: Tensor, tail: LayerTail
) -> tuple[dict[str, Tensor], Tensor]:
    """What the block's VJP reads, and x [C, d]."""
    out = linear(attended, *tail.o_proj)
    middle = residual + _normed(block.norm_behind, out)
    normed = _normed(_norm(tail.norm), residual if tail.parallel else middle)
    seen = {"attended": out, "middle": middle, "up": linear(normed, *tail.up)}
    if tail.gate is not None:
        seen["gate"] = linear(normed, *tail.gate)
    mlp = _mlp(tail)
    seen["fed"] = linear(tail_block.gated(mlp, seen), *tail.down)
    return seen, middle + _normed(mlp.norm_behind, seen["fed"])


def _block(tail: LayerTail) -> tail_block.Block:
    behind = None if tail.behind_attention is None else _norm(tail.behind_attention)
    return tail_block.Block(_linear(tail.o_proj), None if tail.parallel else _mlp(tail), behind)


def _mlp(tail: LayerTail) -> tail_block.Mlp:
    gate = None if tail.gate is None else _linear(tail.gate)
    behind = None if tail.behind_mlp is None else _norm(tail.behind_mlp)
    return tail_block.Mlp(_norm(tail.norm), _linear(tail.up), _linear(tail.down), tail.activation, gate, behind)


def _linear(affine: Affine) -> nn.Linear:
    """A module over the same memory."""
    weight, _ = affine
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    module.weight = nn.Parameter(weight, requires_grad=False)
    return module


def _norm(norm: Norm) -> tail_block.Norm:
    return tail_block.Norm(_Weights(norm.scale, norm.shift), norm.eps, norm.centred)


class _Weights(nn.Module):
    """Those of a norm, as `tail_block.Norm` finds them."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias


def _normed(norm: tail_block.Norm | None, x: Tensor) -> Tensor:
    if norm is None:
        return x
    normed, bias = norm.plain(x) * norm.scale(x), getattr(norm.module, "bias", None)
    return (normed if bias is None else normed + bias).to(x)


def _check(attended: Tensor, residual: Tensor, tail: LayerTail, final: Norm, rows: Tensor) -> None:
    _check_parts(tail, final)
    known = ACTIVATIONS if tail.gate is not None else tail_block.PLAIN_VJPS
    if tail.activation not in known:
        raise InputError(f"activation {tail.activation!r} is none of {', '.join(known)}")
    weights = _weights(tail, final)
    check_alike(attended=attended, residual=residual, rows=rows, **{name: x for name, (x, _) in weights.items()})
    check_shape("attended", attended, None, None)
    check_shape("residual", residual, len(attended), None)
    check_shape("rows", rows, *residual.shape)
    sizes = {"d": residual.shape[1], "H D": tail.o_proj[0].shape[-1], "I": tail.up[0].shape[0]}
    check_shape("attended", attended, None, sizes["H D"])
    for name, (x, axes) in weights.items():
        check_shape(name, x, *(sizes[axis] for axis in axes))


def _check_parts(tail: LayerTail, final: Norm) -> None:
    check_kind("tail", tail, LayerTail)
    for name in ("o_proj", "gate", "up", "down"):
        affine = getattr(tail, name)
        whole = isinstance(affine, tuple | list) and len(affine) == 2
        if not whole and not (name == "gate" and affine is None):
            raise InputError(f"{name} must be a pair: its weight, and its bias or None")
    check_kind("norm", tail.norm, Norm)
    check_kind("final", final, Norm)
    for name in ("behind_attention", "behind_mlp"):
        if getattr(tail, name) is not None:
            check_kind(name, getattr(tail, name), Norm)


def _weights(tail: LayerTail, final: Norm) -> dict[str, tuple[Tensor, tuple[str, ...]]]:
    """All weights of a tail by name, each with the sizes of its axes."""
    linears = {
        "o_proj": (tail.o_proj, ("d", "H D")),
        "gate": (tail.gate, ("I", "d")),
        "up": (tail.up, ("I", "d")),
        "down": (tail.down, ("d", "I")),
    }
    norms = {
        "norm": tail.norm,
        "behind_attention": tail.behind_attention,
        "behind_mlp": tail.behind_mlp,
        "final": final,
    }
    pairs: list[tuple[str, Tensor, Tensor | None, tuple[str, ...]]]
    pairs = [(name, *affine, axes) for name, (affine, axes) in linears.items() if affine is not None]
    pairs += [(name, norm.scale, norm.shift, ("d",)) for name, norm in norms.items() if norm is not None]
    found = {f"{name}'s weight": (weight, axes) for name, weight, _, axes in pairs}
    return found | {f"{name}'s bias": (bias, axes[:1]) for name, _, bias, axes in pairs if bias is not None}
