"""Attention at key lengths that the process has not seen: what a new length costs beyond the second call."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bench.gpu.facts.place import Place

LENGTHS, STEP = 20, 37
QUERIES = (1, 64)  # a step of generate(), a streamed chunk
HEADS, FEATURES = 32, 128


def found(here: Place) -> list[dict[str, Any]]:
    """For each number of queries, with cuDNN's attention and without: seconds of the first and the second call."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        return [_at(here, queries, cudnn) for cudnn in (True, False) for queries in QUERIES]
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def _at(here: Place, queries: int, cudnn: bool) -> dict[str, Any]:
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    first = 64 if here.tiny else 700
    keys = [first + STEP * step + int(cudnn) for step in range(LENGTHS)]  # other lengths with cuDNN and without
    times = [_twice(here, *_operands(here, queries, length)) for length in keys]
    return {
        "queries": queries,
        "cudnn": cudnn,
        "keys": keys,
        "first": [a for a, _ in times],
        "second": [b for _, b in times],
    }


def _twice(here: Place, query: Tensor, key: Tensor, value: Tensor) -> tuple[float, float]:
    call = partial(scaled_dot_product_attention, query, key, value)
    return here.seconds(call), here.seconds(call)


def _operands(here: Place, queries: int, keys: int) -> list[Tensor]:
    shape = {"device": here.device, "dtype": torch.bfloat16}
    heads = 2 if here.tiny else HEADS
    return [torch.zeros(1, heads, length, FEATURES, **shape) for length in (queries, keys, keys)]  # type: ignore[arg-type]
