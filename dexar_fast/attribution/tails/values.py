"""Whether layers compute what their tails' VJPs assume: their numbers are compared, not their code.

    W o = o_proj(W a);   W m = W h + n1(W o);   W gate = gate_proj(W n(m));   W up = up_proj(W n(m));
    W f = down(W (act(gate) up));   W x = W m + n2(W f)

W [2, C] are two rows of weights over the C queries: a product of a sum of rows is the sum of their products. So every
row is checked, and every feature: of a sum one by one, of a product with a matrix A in sums with random signs R, since
(W a A^T) R = (W a)(A^T R), and A^T R is kept. Norms behind attention and MLP are included if there are any.
The element-wise work is of order C d and C I a layer; the rest is done once for all layers of a kind.

Numbers do not show a path that is cut or bent for gradients alone: for that `Tails` looks at hooks, forwards and flags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.attribution.tails.block import Block, Mlp, Norm, Seen, gated
from dexar_fast.attribution.tails.probes import probe, signs
from dexar_fast.attribution.tails.relations import Relation

EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}


@dataclass(frozen=True)
class Sums:
    """Weighted sums of the C rows of a layer, by name: [2, n] each, or [G, 2, n] of G layers."""

    of: dict[str, Tensor]
    total: Tensor  # [2, 1] of the weights alone
    eps: float  # of the rows' dtype

    @classmethod
    def made(cls, rows: Seen, eps: float) -> Sums:
        """From rows [C, n]."""
        together = torch.cat(list(rows.values()), 1)
        dtype = torch.promote_types(together.dtype, torch.float32)
        drawn, total = weights(len(together), dtype, together.device)
        sums = (drawn @ together.to(dtype)).split([x.shape[1] for x in rows.values()], 1)
        return cls(dict(zip(rows, sums, strict=True)), total, eps)

    @classmethod
    def stacked(cls, layers: Sequence[Sums]) -> Sums:
        """Those of layers of one kind."""
        first = layers[0]
        of = {name: torch.stack([each.of[name] for each in layers]) for name in first.of}
        return cls(of, first.total, first.eps)

    @property
    def kind(self) -> tuple[Any, ...]:
        shapes = [(name, x.shape[-1], x.dtype, x.device) for name, x in self.of.items()]
        return *shapes, id(self.total), self.eps

    def normed(self, name: str, norms: Sequence[Norm]) -> Tensor:
        """[G, 2, d] sums of norms' output rows, from those of their `Norm.plain` rows."""
        found = self.of[f"normed {name}"] * torch.stack([norm.scale(self.of[name]) for norm in norms])[:, None]
        bias = self._biases([norm.module for norm in norms])
        return found if bias is None else found + bias

    def product(self, name: str, linears: Sequence[nn.Linear], read: Tensor) -> Relation:
        """The rows of this name should be what linear modules make of rows with the sums `read` [G, 2, in]."""
        seen = self.of[name]
        drawn = signs(seen.shape[-1], seen.dtype, seen.device)
        own = read @ torch.stack([probe(linear, seen.dtype) for linear in linears])
        bias = self._biases(linears)
        own = own if bias is None else own + bias.to(own.dtype) @ drawn
        return Relation.of(seen @ drawn, own, self.eps, sum(linears[0].weight.shape))

    def sum(self, name: str, own: Tensor, residual: Tensor) -> Relation:
        """The rows of this name should have these sums together."""
        return Relation.of(self.of[name], own, self.eps, 1, residual)

    def _biases(self, modules: Sequence[nn.Module]) -> Tensor | None:
        """[G, 2, n] sums of the modules' biases, a row of them for each of the layer's; None if they have none."""
        biases = [bias for module in modules if (bias := getattr(module, "bias", None)) is not None]
        return self.total * torch.stack(biases)[:, None].to(self.total.device) if biases else None


@lru_cache(maxsize=64)
def weights(rows: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """[2, C] and their sums [2, 1]. The first row has one sign, and adds up what rows share; the second has both.

    Neither sum is small beside those of the weights' sizes: rows that are all alike do not cancel.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = 0.5 + torch.rand(2, rows, generator=generator, dtype=torch.float64, device="cpu")
    drawn[1, 3::4] *= -0.5
    drawn /= rows**0.5
    return drawn.to(device, dtype), drawn.sum(1, keepdim=True).to(device, dtype)


def sums_of(block: Block, seen: Seen, attended: Tensor, output: Tensor) -> Sums:
    """Of one forward: attended [C, H D] is the input of o_proj, output [C, d] the layer's output."""
    rows = {"read": attended, "output": output, **seen}
    rows |= {f"normed {name}": norm.plain(seen[name]) for name, norm in block.norms.items()}
    if block.mlp is not None:
        rows["gated"] = gated(block.mlp, seen)
    return Sums.made(rows, max(EPS[output.dtype], EPS[block.o_proj.weight.dtype]))


def by_kind(layers: Sequence[tuple[Block, Sums]]) -> list[list[int]]:
    """The numbers of layers that are compared at once."""
    found: dict[Any, list[int]] = {}
    for number, (block, sums) in enumerate(layers):
        modules = [*block.linears, *(norm.module for norm in block.norms.values())]
        biased = tuple(getattr(module, "bias", None) is not None for module in modules)
        found.setdefault((sums.kind, biased), []).append(number)
    return list(found.values())


def relations(layers: Sequence[tuple[Block, Sums]]) -> list[Relation]:
    """The relations of layers of one kind."""
    blocks, sums = [block for block, _ in layers], Sums.stacked([each for _, each in layers])
    found = [sums.product("attended", [block.o_proj for block in blocks], sums.of["read"])]
    out = _behind(sums, "attended", [block.norm_behind for block in blocks])
    mlps = [block.mlp for block in blocks if block.mlp is not None]
    if not mlps:
        return [*found, sums.sum("output", out, sums.of["input"] + sums.of["beside"])]
    return [*found, sums.sum("middle", out, sums.of["input"]), *_relations_of(mlps, sums)]


def _relations_of(mlps: Sequence[Mlp], sums: Sums) -> list[Relation]:
    normed = sums.normed("middle", [mlp.norm for mlp in mlps])
    gates = [mlp.gate for mlp in mlps if mlp.gate is not None]
    fed = _behind(sums, "fed", [mlp.norm_behind for mlp in mlps])
    return [
        sums.product("up", [mlp.up for mlp in mlps], normed),
        *([sums.product("gate", gates, normed)] if gates else []),
        sums.product("fed", [mlp.down for mlp in mlps], sums.of["gated"]),
        sums.sum("output", fed, sums.of["middle"]),
    ]


def _behind(sums: Sums, name: str, norms: Sequence[Norm | None]) -> Tensor:
    """The sums of this name, normed where the layers norm them."""
    known = [norm for norm in norms if norm is not None]
    return sums.normed(name, known) if known else sums.of[name]


def norm_relation(norm: Norm, rows: Tensor, output: Tensor) -> Relation:
    """The relation of a norm's output [C, d] to its rows [C, d]."""
    sums = Sums.stacked([Sums.made({"output": output, "x": rows, "normed x": norm.plain(rows)}, EPS[output.dtype])])
    return Relation.of(sums.of["output"], sums.normed("x", [norm]), sums.eps, rows.shape[1])
