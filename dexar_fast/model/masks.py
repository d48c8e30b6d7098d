"""Which keys a query reads: causal masks, masks as models give them, and what is known of one without a look at it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from transformers.masking_utils import causal_mask_function

_plain: dict[int, tuple[ref[Tensor], int]] = {}  # by id, masks that are causal and no more, in the version that is


def causal(queries: int, keys: int, device: torch.device, rows: slice | Tensor = slice(None)) -> Tensor:
    """[rows, S] bool: the last query reads every key, the one before it one key less."""
    position = torch.arange(keys - queries, keys, device=device)[rows]
    return torch.arange(keys, device=device) <= position[:, None]


def attendable(mask: Tensor | None, queries: int, keys: int, device: torch.device) -> Tensor:
    """The last `queries` rows of one sequence's mask as [1, Q, S] bool, [H, Q, S] if it has one for each head.

    No mask means causal.
    """
    if mask is None:
        return causal(queries, keys, device)[None]
    mask = mask[0, :, -queries:, :keys]
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def is_causal(module: nn.Module, mask: Tensor | None, keys: int) -> bool:
    """Whether no query of a mask [1, 1 or H, Q, S] reads a key behind it; the last query stands at the last key."""
    if mask is None:
        return bool(getattr(module, "is_causal", True))  # SDPA's own rule: no mask and False: all keys
    queries = mask.shape[-2]
    return not bool((attendable(mask, queries, keys, mask.device) & ~causal(queries, keys, mask.device)).any())


def reads_on(mask: Tensor | None, prompt: int, keys: int) -> bool:
    """Whether a token of the prompt reads one behind the prompt, by a mask [1, 1 or H, S, S] of it all."""
    return mask is None or bool(attendable(mask, keys, keys, mask.device)[:, :prompt, prompt:].any())


def note_plain(mask: Tensor, kwargs: Mapping[str, Any]) -> None:
    """Notes a mask that transformers made for these keywords, if they ask for a causal one and no more."""
    for key in [key for key, (held, _) in _plain.items() if held() is None]:
        del _plain[key]
    if _asks_for_plain(kwargs):
        _plain[id(mask)] = ref(mask), mask._version


def _asks_for_plain(kwargs: Mapping[str, Any]) -> bool:
    """Whether the last query reads every key, and each before it one key less: no padding, no window, no other rule."""
    given = (kwargs.get(name, 0) for name in ("q_length", "kv_length", "q_offset", "kv_offset"))
    queries, keys, first, first_key = given
    aligned = all(isinstance(x, int) for x in (first, first_key)) and first_key == 0 and first + queries == keys
    rule = kwargs.get("mask_function", causal_mask_function)
    return aligned and rule is causal_mask_function and kwargs.get("attention_mask") is None


def is_plain(mask: Tensor | None) -> bool:
    """Whether a mask is known, without a look at it, to be causal and no more; none is."""
    held, version = _plain.get(id(mask), (None, None))
    return mask is None or (held is not None and held() is mask and version == mask._version)
