"""A[h, r, j] of chosen queries r of one call of the attention, from its queries and keys."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dexar_fast.backends.eager import products
from dexar_fast.model.attention import Call, with_sinks
from dexar_fast.model.masks import causal

Rows = slice | Tensor  # which of a call's Q queries: consecutive ones, or [R] int64 in any order
BLOCK_BYTES = 16 * 2**20  # of one set of probabilities [H, rows, S]


def probabilities(call: Call, rows: Rows) -> Tensor:
    """A = softmax(cap(scale <q, k>) + bias, over the keys that the mask allows): [H, R, S], float32 or better.

    As SDPA and transformers' eager attention define it; the cap is softcap tanh(x / softcap) where the layer has one,
    and a sink takes its part of the sum and has no column.
    A query that may read no key has zeros.
    """
    return softmaxed(call, rows, scores(call, rows))


def scores(call: Call, rows: Rows) -> Tensor:
    """scale <q, k> of some queries, before the cap: [H, R, S], float32 or better."""
    dtype = torch.promote_types(call.query.dtype, torch.float32)
    queries = call.query[0, :, rows].transpose(0, 1).to(dtype)
    return products(queries, call.key[0].to(dtype)) * call.scaling


def softmaxed(call: Call, rows: Rows, logits: Tensor) -> Tensor:
    """The probabilities that scores [H, R, S] make."""
    if call.softcap is not None:
        logits = call.softcap * torch.tanh(logits / call.softcap)
    if call.bias is not None:
        logits = logits + call.bias[0, :, rows]
    mask = _mask(call, rows)
    if mask is None:
        return _softmax(call, rows, logits)
    if mask.dtype != torch.bool:
        return _softmax(call, rows, logits + mask)
    lowest = torch.finfo(logits.dtype).min
    return _softmax(call, rows, logits.masked_fill(~mask, lowest)).masked_fill(~mask, 0)


def _softmax(call: Call, rows: Rows, logits: Tensor) -> Tensor:
    return with_sinks(logits[None], call.sinks, rows).softmax(-1)[0, ..., : logits.shape[-1]]


def _mask(call: Call, rows: Rows) -> Tensor | None:
    """The mask [1 or H, R, S] of some queries; None hides nothing."""
    queries, keys = call.query.shape[2], call.key.shape[2]
    if call.mask is not None:
        return call.mask[0, :, rows, :keys]
    return causal(queries, keys, call.query.device, rows)[None] if call.causal else None


def blocks(call: Call, rows: slice) -> Iterator[slice]:
    """Consecutive queries, first to last, whose probabilities take no more than BLOCK_BYTES."""
    row = torch.promote_types(call.query.dtype, torch.float32).itemsize * call.query.shape[1] * call.key.shape[2]
    size = max(1, BLOCK_BYTES // row)
    for start in range(rows.start, rows.stop, size):
        yield slice(start, min(start + size, rows.stop))


def last(call: Call, tokens: slice) -> Iterator[tuple[slice, slice]]:
    """The last queries of a call, which predict these tokens of the answer, in blocks: (tokens, queries)."""
    behind = call.query.shape[2] - tokens.stop
    for rows in blocks(call, slice(tokens.start + behind, call.query.shape[2])):
        yield slice(rows.start - behind, rows.stop - behind), rows
