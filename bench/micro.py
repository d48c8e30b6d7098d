"""The operations on their own, on random inputs, beside the arithmetic that they cannot do without.

Scoring one layer (`ops.head_score`: gradients, head scores, winners, the two maps) at T = 64, H = 32, D = 128 and
N = 576, in float32 and bfloat16, over S = 1,100 and S = 8,192 keys:

- product: the bare matrix product <u, V> into memory that is there already: the floor.
- torch, and cpp or triton: the operation on that backend, as the pass calls it: it takes the maxima and sums of the
  product as well, makes its scores' memory itself, and adds its maps to sums that are there already.

The VJP of a layer's tail (`tail_block.Block` and `Head`: RMSNorm, SwiGLU, two residuals, final norm, rows of the head)
for as many tokens at d = 1,024, over its four matrix products alone; with the steps between them on torch, and on cpp
or triton.

The map filter (`eager.filter_maps`) over one layer's maps, beside a copy of them. `pytest bench/test_micro.py` runs the
same jobs under pytest-benchmark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bench.gates import same_arrays
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.timing import Job, Timer, cpu_timer
from dexar_fast.attribution.tails import block as tail_block
from dexar_fast.backends import eager, operands, ops, plan
from dexar_fast.model.masks import causal

WIDTH, INTERMEDIATE, VOCABULARY = 1024, 2752, 1000
TOKENS, HEADS, HEAD_DIM, VISUAL, SIDE = 64, 32, 128, 576, 24
FIRST_VISUAL = 22
KEYS = (1100, 8192)
DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Case:
    """Jobs of one group; the first is the floor of the others."""

    name: str
    parameters: dict[str, object]
    jobs: list[Job]


def scoring(keys: int, dtype: torch.dtype, device: str = "cpu") -> Case:
    """Scoring of one layer for a chunk of answer tokens at the end of `keys` keys."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(TOKENS, HEADS, HEAD_DIM, generator=generator).to(device, dtype)
    value = torch.randn(HEADS, keys, HEAD_DIM, generator=generator).to(device, dtype)
    visual = torch.arange(FIRST_VISUAL, FIRST_VISUAL + VISUAL)
    text = torch.cat([torch.arange(FIRST_VISUAL), torch.arange(FIRST_VISUAL + VISUAL, keys)])
    chosen = operands.Keys.of(visual, text, causal(TOKENS, keys, u.device))
    sums = operands.MapSums.zeros(u, VISUAL)
    heads_first, out = u.transpose(0, 1).contiguous(), u.new_empty(HEADS, TOKENS, keys)
    jobs = [
        Job("product", "<u, V> into preallocated memory", lambda: torch.bmm(heads_first, value.mT, out=out)),
        *(
            Job(
                name,
                f"ops.head_score on {name}",
                partial(ops.head_score, u, value, chosen, sums, backend=name),
            )
            for name in compared(device)
        ),
    ]
    short = str(dtype).removeprefix("torch.")
    return Case(f"scoring, S={keys}, {short}", {"op": "scoring", "keys": keys, "dtype": short}, jobs)


def compared(device: str) -> Iterable[str]:
    """torch, and the one that has kernels for the device; on the CPU, where its extension is built."""
    fused = plan.plan("auto" if device == "cpu" else "triton", device=device)[0].backend
    return dict.fromkeys(["torch", fused])


def layer_tail(dtype: torch.dtype, device: str = "cpu") -> Case:
    """The VJP of one layer's tail and the head for a chunk of answer tokens."""
    linear = partial(nn.Linear, bias=False, device=device, dtype=dtype)
    norms = [tail_block.Norm(nn.RMSNorm(WIDTH, 1e-6, device=device, dtype=dtype), 1e-6) for _ in range(2)]
    o_proj, gate, up = linear(WIDTH, WIDTH), linear(WIDTH, INTERMEDIATE), linear(WIDTH, INTERMEDIATE)
    down, head = linear(INTERMEDIATE, WIDTH), linear(WIDTH, VOCABULARY)
    block = tail_block.Block(o_proj, tail_block.Mlp(norms[0], up, down, "silu", gate))
    final = tail_block.Head(norms[1], head)
    narrow, wide = (torch.randn(TOKENS, size, device=device, dtype=dtype) for size in (WIDTH, INTERMEDIATE))
    seen, targets = {"middle": narrow, "gate": wide, "up": wide}, torch.arange(TOKENS, device=device)
    pairs = [(narrow, down), (wide, gate), (wide, up), (narrow, o_proj)]
    run = partial(_vjp, block, final, seen, narrow, targets)
    jobs = [
        Job("products", "the matrix products of the VJP alone", partial(_products, pairs)),
        *(
            Job(name, f"tail_block.Head.vjp and tail_block.Block.vjp on {name}", partial(run, backend=name))
            for name in compared(device)
        ),
    ]
    short = str(dtype).removeprefix("torch.")
    return Case(f"layer tail, {short}", {"op": "layer_tail_vjp", "dtype": short}, jobs)


@torch.no_grad()
def _products(pairs: list[tuple[Tensor, nn.Linear]]) -> list[Tensor]:
    return [rows @ linear.weight for rows, linear in pairs]


@torch.no_grad()
def _vjp(
    block: tail_block.Block,
    final: tail_block.Head,
    seen: tail_block.Seen,
    hidden: Tensor,
    targets: Tensor,
    backend: str,
) -> Tensor:
    """u of a layer that gave `hidden`, as tail.Tails computes it."""
    return block.vjp(seen, final.vjp(hidden, targets, final.wanted(targets), backend=backend), backend)


def map_filter(device: str = "cpu") -> Case:
    """The 3 x 3 median of every head's map, over a copy of the maps."""
    maps = torch.rand(HEADS, TOKENS, VISUAL, device=device)
    grid, out = torch.arange(VISUAL).view(SIDE, SIDE), torch.empty_like(maps)
    jobs = [
        Job("copy", "a copy of the maps into preallocated memory", lambda: out.copy_(maps)),
        Job("filter", "eager.filter_maps with rank 5", lambda: eager.filter_maps(maps, None, 5, (grid,))),
    ]
    return Case("map filter", {"op": "map_filter", "dtype": "float32"}, jobs)


def cases(keys: tuple[int, ...] = KEYS, device: str = "cpu") -> Iterator[Case]:
    for dtype in DTYPES:
        for count in keys:
            yield scoring(count, dtype, device)
        yield layer_tail(dtype, device)
    yield map_filter(device)


def measured(case: Case, rounds: int, timer: Timer = cpu_timer) -> Group:
    floor = case.jobs[0].name
    return timed(case.name, case.parameters, case.jobs, rounds=rounds, floor=floor, warm_ups=3, timer=timer)


def groups(options: Options) -> Iterator[Group]:
    for case in cases(tuple(options.sizes(KEYS))):
        yield measured(case, options.rounds_of(50))


BENCHMARK = Benchmark("micro", "single operations over their bare arithmetic", same_arrays, groups)
