"""The Triton kernels on the device of `fake_gpu`: a launch counts one, and `backends.reference` computes its result.

The launchers are ours as they are; only what they launch is another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from dexar_fast.kernels import head_score, tail
from fake_gpu import LAUNCH, NAME, Counted, _note
from torch import Tensor

from dexar_fast.backends import operators, plan, reference, tail_operators


class Launched:
    """Stands in for a kernel."""

    def __init__(self, compute: Callable[..., None]) -> None:
        self._compute = compute

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **constants: Any) -> None:
            _note(LAUNCH)
            self._compute(*(x.held if isinstance(x, Counted) else x for x in args), **constants)

        return launch


def _reads(first: Tensor, last: Tensor, mask: Tensor, keys: int, has_mask: bool) -> Tensor:
    position = torch.arange(keys)
    seen = (position >= first[:, None]) & (position <= last[:, None])
    return seen & (mask != 0) if has_mask else seen


def _score(
    u: Tensor, value: Tensor, query: Any, key: Any, total: Any, scale: float, visual: Tensor, text: Tensor,
    first: Tensor, last: Tensor, mask: Tensor, visual_score: Tensor, text_score: Tensor, winner: Tensor,
    smallest: Tensor, *_: Any, HAS_MASK: bool, WITH_SMALLEST: bool, **constants: Any,
) -> None:  # fmt: skip
    reads = _reads(first, last, mask, value.shape[1], HAS_MASK)
    found = reference.score_layer(u.float(), value.float(), visual.long(), text.long(), reads)
    visual_score.copy_(found.visual_score), text_score.copy_(found.text_score), winner.copy_(found.text_winner)
    if WITH_SMALLEST:
        gradient = torch.where(reads[:, None], reference.gradient(u.float(), value.float()), torch.inf)
        smallest.copy_(gradient[..., visual.long()].amin(-1))


def _maps(
    u: Tensor, value: Tensor, query: Any, key: Any, total: Any, scale: float, visual: Tensor, first: Tensor,
    last: Tensor, mask: Tensor, visual_score: Tensor, text_score: Tensor, token_map: Tensor, unfiltered: Tensor,
    *_: Any, HAS_MASK: bool, ADDS: bool, **constants: Any,
) -> None:  # fmt: skip
    reads = _reads(first, last, mask, value.shape[1], HAS_MASK)
    gradient = torch.where(reads[:, None], reference.gradient(u.float(), value.float()), 0)[..., visual.long()]
    found = reference.aggregate(gradient, (visual_score - text_score).relu())
    for sums, maps in zip((token_map, unfiltered), found, strict=True):
        sums.add_(maps) if ADDS else sums.zero_()[0].copy_(maps)


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


@contextmanager
def on_the_device() -> Iterator[None]:
    """Inside the block `backend="triton"` works on the device that counts."""
    with ExitStack() as stack:
        for module, name, compute in (
            (head_score, "score_kernel", _score),
            (head_score, "map_kernel", _maps),
            (tail, "norm_kernel", _norm),
            (tail, "gated_kernel", _gated),
        ):
            stack.enter_context(patch.object(module, name, Launched(compute)))
        stack.enter_context(patch.dict(plan.DEVICES, {"triton": NAME}))
        stack.enter_context(patch.object(operators, "head_score", head_score.head_score))
        for name in ("norm_vjp", "gated_vjp"):
            stack.enter_context(patch.object(tail_operators, name, getattr(tail, name)))
        yield
