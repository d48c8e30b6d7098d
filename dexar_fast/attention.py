"""The attention function the text decoder runs while it is explained.

It is plain SDPA for everyone. For the pass that watches this thread it also cuts the graph at its output, so that the
layer tail behind it can be differentiated on its own (method.md section 2). No attention matrix is ever formed.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from dexar_fast.errors import ModelError

NAME = "dexar_fast"
SOFTCAP_BLOCK = 128  # query rows at a time: the scores of a soft-capped layer never take a full [S, S]


class Watcher:
    """What a thread installs in `watcher` to see its own forward passes, and no other thread's."""

    explicit_masks = False  # whether a causal mask must be spelt out where SDPA would leave it implicit

    def mask(self, module: nn.Module, mask: Tensor | None) -> Tensor | None:
        """Called before every attention with its mask [1, 1, Q, S]; returns the mask to use."""
        return mask

    def attention(self, module: nn.Module, output: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Called after every attention with its output [1, Q, H, D]; returns the output to go on with."""
        return output


watcher: ContextVar[Watcher | None] = ContextVar("dexar_fast_watcher", default=None)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The AttentionInterface function: [B, H, Q, D] queries to an output [B, Q, H, D]."""
    if kwargs.get("s_aux") is not None:
        raise ModelError(f"{type(module).__name__} attends to a learned sink, which dexar_fast does not support")
    watching = watcher.get()
    if watching is not None:
        attention_mask = watching.mask(module, attention_mask)
    softcap = kwargs.pop("softcap", None)
    if softcap is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    else:
        output = softcapped_attention(query, key, value, attention_mask, kwargs.get("scaling"), softcap)
    if watching is not None:
        output = watching.attention(module, output, value, attention_mask)
    return output, None


def softcapped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, softcap: float
) -> Tensor:
    """softmax(cap tanh(q k / cap)) v in blocks of query rows (Gemma 2); SDPA has no cap. Returns [B, Q, H, D]."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    queries = query.shape[2]
    output = torch.empty_like(query[..., :1].expand(*query.shape[:-1], value.shape[-1]))
    for start in range(0, queries, SOFTCAP_BLOCK):
        rows = slice(start, min(start + SOFTCAP_BLOCK, queries))
        scores = (query[:, :, rows] * scaling) @ key.transpose(-1, -2)
        scores = softcap * torch.tanh(scores / softcap)
        output[:, :, rows] = _softmax(scores, _rows(mask, rows, queries, scores)) @ value
    return output.transpose(1, 2).contiguous()


def _rows(mask: Tensor | None, rows: slice, queries: int, scores: Tensor) -> Tensor:
    if mask is not None:
        return mask[:, :, rows, : scores.shape[-1]]
    return causal(queries, scores.shape[-1], scores.device, rows)


def causal(queries: int, keys: int, device: torch.device, rows: slice = slice(None)) -> Tensor:
    """[rows, S] bool: the last query reads every key, the one before it one key less."""
    position = torch.arange(keys - queries, keys, device=device)[rows]
    return torch.arange(keys, device=device) <= position[:, None]


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    masked = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return masked.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


def attendable(mask: Tensor | None, queries: int, keys: int, device: torch.device) -> Tensor:
    """The last `queries` rows of one sequence's mask as [Q, S] bool; none given means causal."""
    if mask is None:
        return causal(queries, keys, device)
    mask = mask[0, 0, -queries:, :keys]
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def is_causal(module: nn.Module, mask: Tensor | None, keys: int) -> bool:
    """Whether no query of a mask [1, 1, Q, S] reads a key behind it; the last query stands at the last key."""
    if mask is None:
        return bool(getattr(module, "is_causal", True))  # SDPA's own rule: without a mask, False is all keys for all
    queries = mask.shape[-2]
    return not bool((attendable(mask, queries, keys, mask.device) & ~causal(queries, keys, mask.device)).any())


def attention_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """SDPA's mask; the watched pass needs it spelt out where SDPA would leave a causal one implicit."""
    watching = watcher.get()
    if watching is not None and watching.explicit_masks:
        kwargs["allow_is_causal_skip"] = False
    return sdpa_mask(*args, **kwargs)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, attention_mask)
