"""One layer's scores and maps from arrays of any origin, on the fastest backend that is here."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from dexar_fast.backends import ops
from dexar_fast.backends.operands import Attention, MapSums, ScoredLayer, keys_of_heads, placed, run_of
from dexar_fast.errors import InputError
from dexar_fast.lowlevel.fitting import check_alike, check_kind, check_shape
from dexar_fast.settings import settings


def score_layer(
    u: Tensor,
    value: Tensor,
    visual: Tensor,
    text: Tensor,
    reads: Tensor,
    *,
    weighted_by: Attention | None = None,
    score: Any = "max",
    backend: str = "auto",
) -> ScoredLayer:
    """Scores the heads of one layer and aggregates their maps, without an array [T, H, S] where a kernel takes it.

        G = relu(<u, V>);  S_img = max G over visual;  S_txt = max G over text;  w = relu(S_img - S_txt)
        E = sum_h w G;  U = sum_h G       (METHOD.md sections 2 and 3; Eqs. 4 and 5 of arXiv 2603.06302)

    `reference.score_layer` computes the same one head at a time; float32 agrees with it to a few D eps.

    Args:
        u: [T, H, D] float32, float64, bfloat16 or float16: d (target logit) / d (attention output of each head).
        value: [H_kv, S, D] of the same dtype and device; H is a multiple of H_kv (query head h reads h // (H / H_kv)).
        visual, text: [N], [M] whole numbers, positions of keys in ascending order; those in neither list are ignored.
        reads: [T, S] bool: which keys a query may read; [T, H, S] where its heads read different ones.
        weighted_by: multiplies G by the probabilities A = exp(scale <q, k> - L) of this attention: attention times
            gradient. None: the gradient alone.
        score: "max" (the paper), "mean", or ("topk", k) over the keys that a query may read.
        backend: "auto", "torch", "cpp" (CPU, score="max") or "triton" (GPU, score="max").
    Returns:
        All arrays on u's device, float64 of float64, else float32.
    Raises:
        InputError: arguments that do not fit each other. BackendError: a backend that cannot run this.
    """
    check_alike(u=u, value=value)
    check_shape("u", u, None, None, None)
    check_shape("value", value, None, None, u.shape[2])
    if value.shape[1] == 0:
        raise InputError("value holds no key")
    if len(value) == 0 or u.shape[1] == 0 or u.shape[1] % len(value):
        raise InputError(f"u has {u.shape[1]} heads, which cannot share the {len(value)} of value")
    visual, text = (_positions(name, x, value.shape[1]) for name, x in (("visual", visual), ("text", text)))
    _check_apart(visual, text)
    by_head = _by_head(reads, u, value)
    _check_attention(weighted_by, u, value)
    knobs = settings(head_score=score)
    keys = keys_of_heads(placed(run_of(visual), u.device), text.to(u.device), by_head)
    sums = MapSums.zeros(u, len(visual))
    found = ops.head_score(u, value, keys, sums, head_score=knobs.head_score, attention=weighted_by, backend=backend)
    return ScoredLayer(found.visual_score, found.text_score, found.text_winner, sums.token_map, sums.unfiltered_map)


def _positions(name: str, positions: Any, keys: int) -> Tensor:
    """[N] int64 on the CPU. Raises InputError."""
    if not isinstance(positions, Tensor) or positions.ndim != 1 or positions.dtype not in (torch.int64, torch.int32):
        raise InputError(f"{name} must be positions of keys, a tensor [N] of int64, no mask")
    found = positions.long().cpu()
    if len(found) and (int(found[0]) < 0 or int(found[-1]) >= keys or bool((found.diff() <= 0).any())):
        raise InputError(f"{name} must be ascending positions, each once, of the {keys} keys that value holds")
    return found


def _check_apart(visual: Tensor, text: Tensor) -> None:
    both = visual[torch.isin(visual, text)]
    if len(both):
        raise InputError(f"key {int(both[0])} is both visual and text")


def _by_head(reads: Any, u: Tensor, value: Tensor) -> Tensor:
    """[H or 1, T, S] bool. Raises InputError."""
    queries, heads, keys = len(u), u.shape[1], value.shape[1]
    if not isinstance(reads, Tensor) or reads.dtype != torch.bool or reads.device != u.device:
        raise InputError(f"reads must be a tensor of bool on {u.device}, as u is")
    if reads.shape == (queries, keys):
        return reads[None]
    check_shape("reads", reads, queries, heads, keys)
    return reads.transpose(0, 1)


def _check_attention(attention: Attention | None, u: Tensor, value: Tensor) -> None:
    if attention is None:
        return
    check_kind("weighted_by", attention, Attention)
    check_kind("weighted_by.scale", attention.scale, Real)
    check_alike(u=u, query=attention.query, key=attention.key)
    check_shape("query", attention.query, *u.shape)
    check_shape("key", attention.key, *value.shape)
    check_shape("log_sum_exp", attention.log_sum_exp, *u.shape[:2])
