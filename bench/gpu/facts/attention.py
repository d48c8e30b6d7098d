"""Attention at key lengths that the process has not seen: what a new length costs beyond the second call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bench.gpu.facts.place import Place
from dexar_fast.model import flash
from dexar_fast.model.masks import causal

LENGTHS, STEP = 20, 37
CHUNK = 64  # queries
HEADS, FEATURES = 32, 128

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def _masked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = causal(query.shape[2], key.shape[2], query.device)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask)


def _aligned(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return flash.attend(query, key, value, FEATURES**-0.5)


WAYS: dict[str, tuple[int, bool, Attend]] = {  # queries, whether cuDNN may take it, the call
    "step of generate(), cuDNN": (1, True, scaled_dot_product_attention),
    "step of generate()": (1, False, scaled_dot_product_attention),
    "chunk under its mask, cuDNN": (CHUNK, True, _masked),
    "chunk under its mask": (CHUNK, False, _masked),
    "chunk by flash attention aligned to the last key": (CHUNK, False, _aligned),
}


def found(here: Place) -> dict[str, Any]:
    """Seconds of the first and the second call at each length, by way; and whether the last of them is right here."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        serves = flash.serves(*_operands(here, CHUNK, 2 * CHUNK)[:2])
        here_too = {way: how for way, how in WAYS.items() if serves or how[2] is not _aligned}
        timed = {way: _timed(here, *how, offset) for offset, (way, how) in enumerate(here_too.items())}
        return {"aligned flash attention serves": serves} | timed
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def _timed(here: Place, queries: int, cudnn: bool, attend: Attend, offset: int) -> dict[str, list[float]]:
    """Each way at lengths of its own: one that another has met is not new."""
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    first = (CHUNK if here.tiny else 700) + offset
    keys = [first + STEP * step for step in range(LENGTHS)]
    times = [_twice(here, partial(attend, *_operands(here, queries, length))) for length in keys]
    return {"keys": keys, "first": [a for a, _ in times], "second": [b for _, b in times]}


def _twice(here: Place, call: Callable[[], Any]) -> tuple[float, float]:
    return here.seconds(call), here.seconds(call)


def _operands(here: Place, queries: int, keys: int) -> list[Tensor]:
    shape = {"device": here.device, "dtype": torch.bfloat16}
    heads = 2 if here.tiny else HEADS
    return [torch.zeros(1, heads, length, FEATURES, **shape) for length in (queries, keys, keys)]  # type: ignore[arg-type]
