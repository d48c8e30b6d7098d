"""Causal attention aligned to the last key, by flash attention: SDPA takes a chunk of queries with a mask alone."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dexar_fast.model.masks import causal

HALF = (torch.bfloat16, torch.float16)
TRIED_QUERIES, TRIED_KEYS = 5, 23
ROUNDINGS = 8  # of the largest output; another alignment is off by the output itself


def serves(query: Tensor, key: Tensor) -> bool:
    """Whether it computes here what SDPA does, of queries [B, H, Q, D] and keys [B, H_kv, S, D] without a graph."""
    if query.device.type == "cpu" or query.dtype not in HALF or (torch.is_grad_enabled() and query.requires_grad):
        return False
    if not torch.backends.cuda.flash_sdp_enabled():
        return False
    return _agrees(query.device, query.dtype, query.shape[1], key.shape[1], query.shape[3])


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """softmax(scaling q k) v [B, H, Q, D], where the last query reads every key, and each before it one key less."""
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, True, scale=scaling)[0]


@cache
def _agrees(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, features: int) -> bool:
    """Tried once on a few numbers: no device says how it aligns, and not all have the kernel."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((heads, TRIED_QUERIES), (kv_heads, TRIED_KEYS), (kv_heads, TRIED_KEYS))
    drawn = [torch.randn(1, *size, features, generator=generator, device="cpu") for size in sizes]
    query, key, value = (x.to(device, dtype) for x in drawn)
    keys, values = (x.repeat_interleave(heads // kv_heads, 1) for x in (key, value))
    expected = scaled_dot_product_attention(query, keys, values, attn_mask=causal(TRIED_QUERIES, TRIED_KEYS, device))
    try:
        found = attend(query, key, value, features**-0.5)
    except (RuntimeError, NotImplementedError):  # no such kernel, or none of these sizes
        return False
    bound = ROUNDINGS * torch.finfo(dtype).eps * expected.abs().max()
    return bool((found - expected).abs().max() <= bound)
