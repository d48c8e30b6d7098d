"""Whether a layer computes what its tail's VJP takes it to: its numbers are compared, not its code.

    W m = W h + o_proj(W a);  W gate = gate_proj(W n(m));  W up = up_proj(W n(m));  W x = W m + down(W (act(gate) up))

with two rows W [2, C] of weights over the C queries (and the norms behind attention and MLP, where there are any). A
product of a sum of rows is the sum of their products: so every row and every feature is looked at, and each matrix is
read once, for two rows. C d, C I and their like are element-wise; 4 (H D d + 3 d I) operations are products.

What numbers cannot tell is a way that is cut or bent for gradients alone: `Tails` looks for hooks, forwards and flags.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.tail_block import Block, Norm, Seen, gated

# A relation's result, operands and factors are rounded by half an eps at most, at random: relative to the sum of both
# sides 0.3 eps as a root mean square. Products and means of n terms add sqrt(n) roundings of the dtype they sum in.
# Over tests/zoo.py in float32, bfloat16 and float16 no relation takes more than 0.17 of its bound.
ROUNDINGS = 2
EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}


@dataclass(frozen=True)
class Comparison:
    """Relations of one layer side by side, N features in all."""

    seen: Tensor  # [2, N] sums of the layer's own rows
    expected: Tensor  # [2, N]
    own: Tensor  # [2, N] of the expected what the relation computes; the rest is a residual
    widths: tuple[int, ...]  # features of each relation
    terms: tuple[int, ...]  # numbers that each sums up
    eps: float

    @property
    def kind(self) -> tuple[Any, ...]:
        """Comparisons that are alike in this are made at once."""
        return self.widths, self.terms, self.eps, self.seen.dtype, self.seen.device


class Sums:
    """Weighted sums of what a layer computed for C queries, and what they should be."""

    def __init__(self, rows: int, like: Tensor) -> None:
        self.weights, self.total = weights(rows, like.dtype, like.device)
        self._rows: list[Tensor] = []
        self._expected: list[Tensor] = []
        self._own: list[Tensor] = []
        self._terms: list[int] = []

    def of(self, rows: Tensor) -> Tensor:
        """[2, n] of rows [C, n]."""
        return self.weights @ rows.to(self.weights.dtype)

    def product(self, linear: nn.Linear, sums: Tensor) -> Tensor:
        """[2, n] of the rows that a linear module makes of those with these sums."""
        found = (sums.to(linear.weight.dtype) @ linear.weight.T).to(sums.dtype)
        return found if linear.bias is None else found + self.total * linear.bias

    def normed(self, norm: Norm, rows: Tensor) -> Tensor:
        """[2, d] of the rows that a norm makes of rows [C, d]."""
        return norm.summed(rows.to(self.weights.dtype), self.weights, self.total)

    def relate(self, rows: Tensor, own: Tensor, terms: int, residual: Tensor | None = None) -> None:
        """rows [C, n] should have the sums own [2, n], behind those of a residual."""
        self._rows.append(rows)
        self._own.append(own)
        self._expected.append(own if residual is None else own + residual)
        self._terms.append(terms)

    def comparison(self, eps: float) -> Comparison:
        widths = tuple(rows.shape[1] for rows in self._rows)
        seen = self.of(torch.cat(self._rows, 1))
        return Comparison(seen, torch.cat(self._expected, 1), torch.cat(self._own, 1), widths, tuple(self._terms), eps)


@lru_cache(maxsize=64)
def weights(rows: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """[2, C] and their sums [2, 1]: all of one sign in the one, which adds up what rows share, of both in the other."""
    generator = torch.Generator().manual_seed(0)
    drawn = 0.5 + torch.rand(2, rows, generator=generator, dtype=torch.float64, device="cpu")
    drawn[1] *= 1 - 2 * torch.randint(2, (rows,), generator=generator, device="cpu")
    drawn /= rows**0.5
    return drawn.to(device, dtype), drawn.sum(1, keepdim=True).to(device, dtype)


def compared(block: Block, seen: Seen, attended: Tensor, output: Tensor) -> Comparison:
    """Of one forward: attended [C, H D] is what o_proj read, output [C, d] what the layer gave."""
    dtype = torch.promote_types(output.dtype, torch.float32)
    sums = Sums(len(output), output.new_empty(0, dtype=dtype))
    out = sums.product(block.o_proj, sums.of(attended))
    terms = block.o_proj.in_features
    if block.norm_behind is not None:
        sums.relate(seen["attended"], out, terms)
        out = sums.normed(block.norm_behind, seen["attended"])
    residual = sums.of(seen["input"])
    if block.mlp is None:
        sums.relate(output, out, terms, residual + sums.of(seen["beside"]))
    else:
        sums.relate(seen["middle"], out, terms, residual)
        _compare_mlp(block, sums, seen, output)
    return sums.comparison(max(EPS[output.dtype], EPS[block.o_proj.weight.dtype]))


def _compare_mlp(block: Block, sums: Sums, seen: Seen, output: Tensor) -> None:
    mlp = block.mlp
    assert mlp is not None
    normed = sums.normed(mlp.norm, seen["middle"])
    for name, linear in (("gate", mlp.gate), ("up", mlp.up)):
        if linear is not None:
            sums.relate(seen[name], sums.product(linear, normed), linear.in_features)
    fed = sums.product(mlp.down, sums.of(gated(mlp, seen)))
    if mlp.norm_behind is not None:
        sums.relate(seen["fed"], fed, mlp.down.in_features)
        fed = sums.normed(mlp.norm_behind, seen["fed"])
    sums.relate(output, fed, mlp.down.in_features, sums.of(seen["middle"]))


def normed_alike(norm: Norm, rows: Tensor, output: Tensor) -> Comparison:
    """Of a norm's output [C, d] of rows [C, d]."""
    dtype = torch.promote_types(output.dtype, torch.float32)
    sums = Sums(len(rows), output.new_empty(0, dtype=dtype))
    sums.relate(output, sums.normed(norm, rows), rows.shape[1])
    return sums.comparison(EPS[output.dtype])


def excess(comparisons: list[Comparison]) -> Tensor:
    """[n] by how many times each comparison differs more than by its rounding; NaN where anything is not finite.

    All of one kind. Differences are taken relative to both sides and to their mean over the relation's features. They
    are small as a whole, and along what the relation computes: a residual hides less of it there.
    """
    first = comparisons[0]
    means, back, bound = _segments(*first.kind)
    seen, expected, own = (torch.stack([getattr(c, n) for c in comparisons]) for n in ("seen", "expected", "own"))
    size = seen.abs() + own.abs()
    size = (size + (size @ means) @ back).clamp_(min=torch.finfo(size.dtype).tiny)
    off, part = (seen - expected) / size, own / size
    spread, along, length = (x @ means for x in (off.square(), off * part, part.square()))
    widths = means.count_nonzero(0)
    hidden = length + (length / widths).sqrt() + torch.finfo(size.dtype).tiny
    return (torch.maximum(spread.sqrt(), along.abs() / hidden) / bound).flatten(1).amax(1)


@lru_cache(maxsize=64)
def _segments(
    widths: tuple[int, ...], terms: tuple[int, ...], eps: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """[N, k] that takes the mean of each of k relations, [k, N] that repeats it, and the bound [k] of each."""
    of = torch.arange(len(widths), device="cpu").repeat_interleave(torch.tensor(widths, device="cpu"))
    back = torch.nn.functional.one_hot(of, len(widths)).T.to(dtype)
    means = (back / back.sum(1, keepdim=True)).T
    bound = ROUNDINGS * eps + torch.finfo(dtype).eps * torch.tensor(terms, dtype=dtype, device="cpu").sqrt()
    return means.contiguous().to(device), back.to(device), bound.to(device)
