"""The Triton kernels on the device of `fake_gpu`: a launch counts one, and `backends.reference` computes its result.

The launchers are ours as they are; only what they launch is another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from dexar_fast.kernels import head_score, kv_cache, tail
from fake_gpu import LAUNCH, NAME, _held, _note
from torch import Tensor
from torch.utils._pytree import tree_map

from dexar_fast.backends import operators, plan, reference, tail_operators

SINGLE = torch.float32


class Launched:
    """Stands in for a kernel."""

    def __init__(self, compute: Callable[..., None]) -> None:
        self._compute = compute

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **constants: Any) -> None:
            _note(LAUNCH)
            self._compute(*tree_map(_held, args), **constants)

        return launch


def _keys(
    lists: tuple[Tensor, ...], queries: int, keys: int, counts: tuple[int, ...], start: int, run: bool, masked: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Visual and text positions, and which keys each query reads."""
    position = torch.arange(keys)
    if run:
        seen = (position >= start) & (position < start + counts[0])
        reads = position <= torch.arange(keys - queries, keys)[:, None]
        return position[seen], position[~seen], reads
    visual, text, first, last, mask = lists
    reads = (position >= first[:, None]) & (position <= last[:, None])
    return visual.long(), text.long(), reads & (mask != 0) if masked else reads


def _score(
    us: Any, values: Any, query: Any, key: Any, total: Any, scale: float, visual: Tensor, text: Tensor,
    first: Tensor, last: Tensor, mask: Tensor, visual_score: Tensor, text_score: Tensor, winner: Tensor,
    smallest: Tensor, queries: int, keys: int, visual_count: int, text_count: int, start: int, *_: Any, RUN: bool,
    HAS_MASK: bool, WITH_SMALLEST: bool, **constants: Any,
) -> None:  # fmt: skip
    lists, counts = (visual, text, first, last, mask), (visual_count, text_count)
    seen, others, reads = _keys(lists, queries, keys, counts, start, RUN, HAS_MASK)
    for parts, nothing in ((visual_score, 0), (text_score, 0), (winner, -1), (smallest, torch.inf)):
        parts.fill_(nothing)  # but in the first part
    for layer, (u, value) in enumerate(zip(us, values, strict=True)):
        found = reference.score_layer(u.float(), value.float(), seen, others, reads)
        scores = found.visual_score, found.text_score, found.text_winner
        visual_score[0, layer], text_score[0, layer], winner[0, layer] = scores
        if WITH_SMALLEST:
            gradient = torch.where(reads[:, None], reference.gradient(u.float(), value.float()), torch.inf)
            smallest[0, layer] = gradient[..., seen].amin(-1)


def _join(*given: Any, **constants: Any) -> None:
    for parts, scores in zip(given[:4], given[4:8], strict=True):
        scores.copy_(parts[0])


def _maps(
    us: Any, values: Any, query: Any, key: Any, total: Any, scale: float, visual: Tensor, first: Tensor,
    last: Tensor, mask: Tensor, visual_score: Tensor, text_score: Tensor, token_map: Tensor, unfiltered: Tensor,
    queries: int, keys: int, visual_count: int, start: int, *_: Any, RUN: bool, HAS_MASK: bool, **constants: Any,
) -> None:  # fmt: skip
    lists, weights = (visual, visual, first, last, mask), (visual_score - text_score).relu()
    seen, _others, reads = _keys(lists, queries, keys, (visual_count,), start, RUN, HAS_MASK)
    token_map.zero_(), unfiltered.zero_()
    for u, value, weight in zip(us, values, weights, strict=True):
        gradient = torch.where(reads[:, None], reference.gradient(u.float(), value.float()), 0)[..., seen]
        for sums, maps in zip((token_map, unfiltered), reference.aggregate(gradient, weight), strict=True):
            sums[0].add_(maps)


def _norm(
    x: Tensor, grad: Tensor, scale: Tensor, residual: Tensor, out: Tensor, eps: float, *_: Any, CENTRED: bool,
    HAS_RESIDUAL: bool, **constants: Any,
) -> None:  # fmt: skip
    added = residual.float() if HAS_RESIDUAL else None
    out.copy_(reference.norm_vjp(x.float(), grad.float(), scale.float(), eps, added, centred=CENTRED))


def _gated(
    grad: Tensor, gate: Tensor, up: Tensor, of_gate: Tensor, of_up: Tensor, *_: Any, SILU: bool, **constants: Any
) -> None:
    name = "silu" if SILU else "gelu_tanh"
    for out, found in zip(
        (of_gate, of_up), reference.gated_vjp(grad.float(), gate.float(), up.float(), name), strict=True
    ):
        out.copy_(found)


def _append(*given: Any, **constants: Any) -> None:
    layers, start = given[:4], given[4]
    for layer in zip(*layers, strict=True):
        reference.kv_append(*layer, start)


@contextmanager
def on_the_device() -> Iterator[None]:
    """Inside the block `backend="triton"` works on the device that counts."""
    with ExitStack() as stack:
        for module, name, compute in (
            (head_score, "score_kernel", _score),
            (head_score, "join_kernel", _join),
            (head_score, "map_kernel", _maps),
            (kv_cache, "append_kernel", _append),
            (tail, "norm_kernel", _norm),
            (tail, "gated_kernel", _gated),
        ):
            stack.enter_context(patch.object(module, name, Launched(compute)))
        stack.enter_context(patch.dict(plan.DEVICES, {"triton": NAME}))
        stack.enter_context(patch.object(operators, "head_score", head_score.head_score))
        stack.enter_context(patch.object(operators, "kv_append", kv_cache.kv_append))
        for name in ("norm_vjp", "gated_vjp"):
            stack.enter_context(patch.object(tail_operators, name, getattr(tail, name)))
        yield
