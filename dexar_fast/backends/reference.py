"""Every operation in plain PyTorch, one query, head or slot at a time: the oracle the fast backends must match."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from dexar_fast.backends.operands import Attention, ScoredLayer


def gradient(u: Tensor, value: Tensor) -> Tensor:
    """G[t, h, j] = relu(<u[t, h], V[k(h), j]>), k(h) = h // (H / H_kv) (METHOD.md section 2).

    Args:
        u: [T, H, D], the gradient of the target logit with respect to the attention output of each head.
        value: [H_kv, S, D].
    Returns:
        [T, H, S] in the promoted dtype of the arguments.
    """
    heads = u.shape[1] // value.shape[0]
    return torch.stack([(u[:, h] @ value[h // heads].T).relu() for h in range(u.shape[1])], dim=1)


def attention(query: Tensor, key: Tensor, log_sum_exp: Tensor, scale: float) -> Tensor:
    """A[t, h, j] = exp(scale <q[t, h], k[k(h), j]> - L[t, h]): the attention's probabilities, from what it kept.

    Args:
        query: [T, H, D] and key: [H_kv, S, D], as the attention product takes them.
        log_sum_exp: [T, H], L = log sum_j exp(scale <q, k>) over the keys that query t attends to.
    Returns:
        [T, H, S]; meaningless for the keys that a query does not attend to.
    """
    heads = query.shape[1] // key.shape[0]
    logits = torch.stack([query[:, h] @ key[h // heads].T for h in range(query.shape[1])], dim=1)
    return (scale * logits - log_sum_exp[:, :, None]).exp()


def head_score(gradients: Tensor, keys: Tensor, score: str | tuple[str, int] = "max") -> Tensor:
    """S[t, h]: the score of the keys marked in `keys` [T, S] bool, from gradients [T, H, S].

    max, mean, or the mean of the k largest (of all of them if there are fewer); 0 over an empty set.
    """
    scores = gradients.new_zeros(gradients.shape[:2])
    for t in range(gradients.shape[0]):
        for h in range(gradients.shape[1]):
            scores[t, h] = _score(gradients[t, h, keys[t]], score)
    return scores


def _score(values: Tensor, score: str | tuple[str, int]) -> Tensor:
    if len(values) == 0:
        return values.new_zeros(())
    if score == "max":
        return values.max()
    if score == "mean":
        return values.mean()
    return values.topk(min(int(score[1]), len(values))).values.mean()


def rank_filter(maps: Tensor, rank: int) -> Tensor:
    """The rank-th smallest of each cell's 3x3 neighbourhood, edges replicated: [..., rows, columns] to the same."""
    rows, columns = maps.shape[-2:]
    padded = torch.nn.functional.pad(maps.reshape(1, -1, rows, columns), (1, 1, 1, 1), mode="replicate")
    neighbours = [padded[..., r : r + rows, c : c + columns] for r in range(3) for c in range(3)]
    return torch.stack(neighbours).sort(dim=0).values[rank - 1].reshape(maps.shape)


def aggregate(gradients: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """E[t, n] = sum_h w[t, h] G[t, h, n] and U[t, n] = sum_h G[t, h, n] (Eq. 5): [T, H, N], [T, H] to two [T, N]."""
    return (weights[:, :, None] * gradients).sum(1), gradients.sum(1)


def score_layer(
    u: Tensor,
    value: Tensor,
    visual: Tensor,
    text: Tensor,
    reads: Tensor,
    *,
    weighted_by: Attention | None = None,
    score: str | tuple[str, int] = "max",
) -> ScoredLayer:
    """Scores and maps of one layer (METHOD.md section 3), from one head's gradients at a time.

    Args:
        u: [T, H, D]. value: [H_kv, S, D]. visual: [N] and text: [M] positions of keys.
        reads: [T, S] or, where heads differ, [T, H, S] bool: which keys a query may read.
        weighted_by: the attention whose probabilities G is multiplied by.
        score: as `head_score` takes it.
    """
    found = gradient(u, value)
    if weighted_by is not None:
        found = found * attention(weighted_by.query, weighted_by.key, weighted_by.log_sum_exp, weighted_by.scale)
    by_head = reads if reads.ndim == 3 else reads[:, None].expand(found.shape)
    found = torch.where(by_head, found, 0)
    visual_score, text_score = (
        torch.cat([head_score(found[:, [h]][..., keys], by_head[:, h, keys], score) for h in range(u.shape[1])], 1)
        for keys in (visual, text)
    )
    token_map, unfiltered_map = aggregate(found[..., visual], (visual_score - text_score).relu())
    return ScoredLayer(visual_score, text_score, _winner(found[..., text], text), token_map, unfiltered_map)


def _winner(gradients: Tensor, positions: Tensor) -> Tensor:
    """The position of the largest of gradients [T, H, M], [T, H]; -1 where none is positive."""
    if len(positions) == 0:
        return torch.full(gradients.shape[:2], -1)
    largest, index = gradients.max(-1)
    return torch.where(largest > 0, positions[index], -1)


@dataclass(frozen=True)
class Norm:
    """norm(x) = scale y / sqrt(mean(y^2) + eps) + shift, y = x or, if centred, x - mean(x), of one x [d]."""

    scale: Tensor
    eps: float
    shift: Tensor | None = None
    centred: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        y = x - x.mean() if self.centred else x
        normed = self.scale * y / (y.square().mean() + self.eps).sqrt()
        return normed if self.shift is None else normed + self.shift


def norm_vjp(
    x: Tensor, grad: Tensor, scale: Tensor, eps: float, residual: Tensor | None = None, *, centred: bool = False
) -> Tensor:
    """residual + norm'(x)^T grad by autograd, of norm(x) = scale y / sqrt(mean(y^2) + eps), y = x or x - mean(x).

    Args:
        x, grad: [C, d]. scale: [d]. residual: [C, d]; None adds nothing. centred: y = x - mean(x), a LayerNorm.
    """

    norm = Norm(scale, eps, centred=centred)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        rows = torch.stack([norm(row) for row in x])
        (found,) = torch.autograd.grad(rows, x, grad)
    return found if residual is None else residual + found


def gated_vjp(grad: Tensor, gate: Tensor, up: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """The gradients of z = act(g) * p with respect to g and p by autograd, from dz: [C, I] each."""
    with torch.enable_grad():
        gate, up = gate.detach().requires_grad_(), up.detach().requires_grad_()
        grad_gate, grad_up = torch.autograd.grad(ACTIVATIONS[activation](gate) * up, (gate, up), grad)
    return grad_gate, grad_up


def _gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_tanh": _gelu_tanh,
    "relu": lambda x: x * (x > 0),
    "quick_gelu": lambda x: x / (1 + torch.exp(-1.702 * x)),
}

Affine = tuple[Tensor, Tensor | None]  # a weight [out, in] and a bias [out]


@dataclass(frozen=True)
class LayerTail:
    """x = m + n2(down(z)), m = h + n1(o_proj(a)), z = act(gate(y)) * up(y) or, without a gate, act(up(y)), y = n(m).

    If parallel, y = n(h). For one query: a [H D], h and x [d]. A norm that is None is the identity.
    """

    o_proj: Affine
    norm: Norm
    up: Affine
    down: Affine
    activation: str  # a name of ACTIVATIONS
    gate: Affine | None = None
    behind_attention: Norm | None = None  # n1
    behind_mlp: Norm | None = None  # n2
    parallel: bool = False

    def __call__(self, attended: Tensor, residual: Tensor) -> Tensor:
        middle = residual + _normed(self.behind_attention, linear(attended, *self.o_proj))
        normed, act = self.norm(residual if self.parallel else middle), ACTIVATIONS[self.activation]
        up = linear(normed, *self.up)
        wide = act(up) if self.gate is None else act(linear(normed, *self.gate)) * up
        return middle + _normed(self.behind_mlp, linear(wide, *self.down))


def _normed(norm: Norm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def layer_tail_vjp(
    attended: Tensor,
    residual: Tensor,
    tail: LayerTail,
    final: Norm,
    rows: Tensor,
    after: Callable[[Tensor], Tensor] = lambda logit: logit,
    norms: int = 1,
) -> Tensor:
    """u = d o / d a by autograd, of o = after(<norm(x), W[v]>), x = tail(a, h), one query at a time.

    Args:
        attended: [C, H D] a, the attention output of all heads. residual: [C, d] h. rows: [C, d] W[v] of each target.
        after: what the model does to a logit (a soft cap, say). norms: how often x is normed.
    Returns:
        [C, H D].
    """

    def logit(c: int, attended: Tensor) -> Tensor:
        x = tail(attended, residual[c])
        for _ in range(norms):
            x = final(x)
        return after((x * rows[c]).sum())

    with torch.enable_grad():
        leaves = [row.detach().requires_grad_() for row in attended]
        return torch.stack([torch.autograd.grad(logit(c, leaf), leaf)[0] for c, leaf in enumerate(leaves)])


def kv_append(keys: Tensor, values: Tensor, key: Tensor, value: Tensor, start: int) -> None:
    """keys[:, h, start + q] = key[:, h, q] and values[:, h, start + q] = value[:, h, q].

    Args:
        keys, values: [1, H_kv, slots, D] and [1, H_kv, slots, D_v] of one layer, written in place.
        key, value: [1, H_kv, Q, D] and [1, H_kv, Q, D_v] of the same dtypes, any strides.
        start: the first slot.
    """
    for cache, states in ((keys, key), (values, value)):
        for q in range(states.shape[2]):
            cache[:, :, start + q] = states[:, :, q]


def kv_copy(tensors: Sequence[Tensor], copies: Sequence[tuple[int, int, int]]) -> None:
    """tensor[:, :, to + i] = tensor[:, :, from + i] for each i < n, each (from, to, n) and each [1, H_kv, slots, D].

    No slot may be both read and written, or written twice: the order of copies is free.
    """
    for tensor in tensors:
        for source, target, count in copies:
            for i in range(count):
                tensor[:, :, target + i] = tensor[:, :, source + i]
