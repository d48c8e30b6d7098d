"""The attention of an answer's queries, differentiable in each query's own row alone.

In a causal model the attention output at p_t reaches the logit of token t through row p_t only: no earlier row reads
it, and no later one leads to that logit. So if each query takes all keys and values but its own for constants, one
backward of the sum of T logits gives the gradient of each in its own row, as T backwards would.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dexar_fast.attribution.rows.probabilities import blocks, scores, softmaxed
from dexar_fast.model.attention import Call


def own_rows(call: Call, count: int) -> Tensor:
    """The outputs of a call's last C queries, [1, C, H, D_v]. The backward computes their probabilities again."""
    outputs = [
        checkpoint(partial(_outputs, call, rows), use_reentrant=False, preserve_rng_state=False)
        for rows in blocks(call, slice(call.query.shape[2] - count, call.query.shape[2]))
    ]
    return torch.cat(outputs, dim=1).transpose(0, 1)[None].to(call.value.dtype)


def _outputs(call: Call, rows: slice) -> Tensor:
    """The outputs of some queries: [H, R, D_v], float32 or better."""
    fixed = replace(call, key=call.key.detach(), value=call.value.detach())
    queries, groups = call.query[0, :, rows], call.query.shape[1] // call.key.shape[1]
    known = call.key.shape[2] - call.query.shape[2]
    own = slice(known + rows.start, known + rows.stop)
    key, value = (_zero(x[0, :, own]).repeat_interleave(groups, 0) for x in (call.key, call.value))
    place = torch.arange(own.start, own.stop, device=key.device)[None, :, None].expand(len(queries), -1, -1)
    logits = scores(fixed, rows)
    own_logits = (queries * key).sum(-1, keepdim=True) * call.scaling
    weights = softmaxed(fixed, rows, logits.scatter_add(2, place, own_logits.to(logits.dtype)))
    return _weighted(weights, fixed.value[0]) + weights.gather(2, place) * value


def _zero(x: Tensor) -> Tensor:
    """0, with the gradient of x."""
    return x - x.detach()


def _weighted(weights: Tensor, value: Tensor) -> Tensor:
    """A V: [H, R, D_v], of weights [H, R, S] and values [H_kv, S, D_v]."""
    grouped = weights.view(len(value), -1, weights.shape[-1])
    return (grouped @ value.to(weights.dtype)).view(*weights.shape[:2], -1)
