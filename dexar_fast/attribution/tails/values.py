"""Whether a layer computes what its tail's VJP assumes: its numbers are compared, not its code.

    W m = W h + o_proj(W a);  W gate = gate_proj(W n(m));  W up = up_proj(W n(m));  W x = W m + down(W (act(gate) up))

W [2, C] are two rows of weights over the C queries; norms behind attention and MLP are included if there are any. The
product of a sum of rows is the sum of their products. So every row and every feature is checked, and each matrix is
read once, for two rows. The element-wise work is of order C d and C I; products take 4 (H D d + 3 d I) operations.

Numbers do not show a path that is cut or bent for gradients alone: for that `Tails` looks at hooks, forwards and flags.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dexar_fast.attribution.tails.block import Block, Mlp, Norm, Seen, gated

# A relation's result, operands and factors are rounded by half an eps at most, at random. Relative to the sum of both
# sides that is 0.3 eps as a root mean square. Products and means of n terms add sqrt(n) roundings of the dtype they sum
# in. Over tests/support/zoo.py in float32, bfloat16 and float16 no relation takes more than 0.17 of its bound.
ROUNDINGS = 2
EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}


class Relation(NamedTuple):
    """Sums [2, n] of a layer's rows, and what they should be."""

    off: Tensor  # seen minus what they should be
    own: Tensor  # the part of what they should be that the relation computes; the rest is a residual
    seen: Tensor
    bound: float  # of the rounding, relative to both sides

    @property
    def kind(self) -> tuple[Any, ...]:
        """Relations of equal kind are checked together."""
        return self.seen.shape[1], self.seen.dtype, self.seen.device


class Sums:
    """Weighted sums of a layer's rows [C, n], by name, and what they should be."""

    def __init__(self, rows: Seen, eps: float) -> None:
        together = torch.cat(list(rows.values()), 1)
        dtype = torch.promote_types(together.dtype, torch.float32)
        drawn, self._total = weights(len(together), dtype, together.device)
        sums = (drawn @ together.to(dtype)).split([x.shape[1] for x in rows.values()], 1)
        self._sums = dict(zip(rows, sums, strict=True))
        self._eps = eps
        self.relations: list[Relation] = []

    def __getitem__(self, name: str) -> Tensor:
        return self._sums[name]

    def product(self, linear: nn.Linear, sums: Tensor) -> Tensor:
        """[2, n] sums of a linear module's output rows, from the sums of its input rows."""
        found = (sums.to(linear.weight.dtype) @ linear.weight.T).to(sums.dtype)
        return found if linear.bias is None else found + self._total * linear.bias

    def normed(self, norm: Norm, sums: Tensor) -> Tensor:
        """[2, d] sums of a norm's output rows, from the sums of its `Norm.plain` rows."""
        return norm.scaled(sums, self._total)

    def relate(self, name: str, own: Tensor, terms: int, residual: Tensor | None = None) -> None:
        """The rows of this name should have the sums own [2, n], each of so many terms, plus those of a residual."""
        seen = self._sums[name]
        off = seen - own if residual is None else seen - own - residual
        bound = ROUNDINGS * self._eps + torch.finfo(seen.dtype).eps * math.sqrt(terms)
        self.relations.append(Relation(off, own, seen, bound))


@lru_cache(maxsize=64)
def weights(rows: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """[2, C] and their sums [2, 1]. The first row has one sign, and adds up what rows share; the second has both."""
    generator = torch.Generator().manual_seed(0)
    drawn = 0.5 + torch.rand(2, rows, generator=generator, dtype=torch.float64, device="cpu")
    drawn[1] *= 1 - 2 * torch.randint(2, (rows,), generator=generator, device="cpu")
    drawn /= rows**0.5
    return drawn.to(device, dtype), drawn.sum(1, keepdim=True).to(device, dtype)


def relations(block: Block, seen: Seen, attended: Tensor, output: Tensor) -> list[Relation]:
    """The relations of one forward: attended [C, H D] is the input of o_proj, output [C, d] the layer's output."""
    rows = {"read": attended, "output": output, **seen}
    rows |= {f"normed {name}": norm.plain(seen[name]) for name, norm in block.norms.items()}
    if block.mlp is not None:
        rows["gated"] = gated(block.mlp, seen)
    sums = Sums(rows, max(EPS[output.dtype], EPS[block.o_proj.weight.dtype]))
    out, terms = sums.product(block.o_proj, sums["read"]), block.o_proj.in_features
    if block.norm_behind is not None:
        sums.relate("attended", out, terms)
        out = sums.normed(block.norm_behind, sums["normed attended"])
    if block.mlp is None:
        sums.relate("output", out, terms, sums["input"] + sums["beside"])
    else:
        sums.relate("middle", out, terms, sums["input"])
        _relate_mlp(block.mlp, sums)
    return sums.relations


def _relate_mlp(mlp: Mlp, sums: Sums) -> None:
    normed = sums.normed(mlp.norm, sums["normed middle"])
    for name, linear in (("gate", mlp.gate), ("up", mlp.up)):
        if linear is not None:
            sums.relate(name, sums.product(linear, normed), linear.in_features)
    fed, terms = sums.product(mlp.down, sums["gated"]), mlp.down.in_features
    if mlp.norm_behind is not None:
        sums.relate("fed", fed, terms)
        fed = sums.normed(mlp.norm_behind, sums["normed fed"])
    sums.relate("output", fed, terms, sums["middle"])


def norm_relation(norm: Norm, rows: Tensor, output: Tensor) -> Relation:
    """The relation of a norm's output [C, d] to its rows [C, d]."""
    sums = Sums({"output": output, "normed": norm.plain(rows)}, EPS[output.dtype])
    sums.relate("output", sums.normed(norm, sums["normed"]), rows.shape[1])
    return sums.relations[0]


def hold(relations: list[Relation]) -> list[bool]:
    """Whether each is off by its rounding alone; False if anything is not finite."""
    kinds: dict[Any, list[int]] = {}
    for at, relation in enumerate(relations):
        kinds.setdefault(relation.kind, []).append(at)
    found = [False] * len(relations)
    for members in kinds.values():
        some = [relations[at] for at in members]
        for at, moments in zip(members, _moments(some), strict=True):
            found[at] = all(_is_rounding(difference, own, relations[at]) for difference, own in moments)
    return found


def _moments(relations: list[Relation]) -> list[Any]:
    """[r, 2, 2, 2] for each relation and each of its rows: products of `off` and `own`, each with each, summed over n.

    Both are relative to both sides and to their mean over the features.
    """
    sides = torch.stack([sums for relation in relations for sums in relation[:3]]).unflatten(0, (-1, 3))
    size = sides[:, 1:].abs().sum(1, keepdim=True)
    size = (size + size.mean(-1, keepdim=True)).clamp_(min=torch.finfo(size.dtype).tiny)
    both = (sides[:, :2] / size).transpose(1, 2)
    return (both @ both.mT).tolist()


def _is_rounding(difference: list[float], own: list[float], relation: Relation) -> bool:
    """Whether a difference is small as a whole, and along what the relation computes: a residual hides less there."""
    n = relation.seen.shape[1]
    spread, along, length = difference[0] / n, abs(own[0]) / n, own[1] / n
    hidden = length + math.sqrt(length / n) if length >= 0 else math.nan
    return spread <= relation.bound**2 and along <= relation.bound * hidden
