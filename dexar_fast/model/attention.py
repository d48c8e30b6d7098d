"""The attention function the text decoder runs while it is explained.

It is plain SDPA for everyone. Whoever watches this thread gets each call of it, queries and keys included. The pass of
METHOD.md section 2 cuts the graph at its output, so that the layer tail behind it can be differentiated on its own. No
attention matrix is ever formed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from dexar_fast.errors import ModelError
from dexar_fast.model.signatures import parameters

NAME = "dexar_fast"
# Tensors that attention may get beside those that the model's own forward takes and passes on:
POSITIONS = frozenset({"position_ids", "cu_seq_lens_q", "cu_seq_lens_k"})  # the mask shows packed sequences, too
APPLIED = frozenset({"position_bias"})  # SDPA adds it to its scores
Kind = tuple[type, frozenset[str], str]  # of a call: the caller's class, the names of its own tensors, the kind of mask
SOFTCAP_BLOCK = 128  # query rows at a time: the scores of a soft-capped layer never take a full [S, S]


class Side(Enum):
    """Whose keys a call reads."""

    OWN = "the sequence's"
    BESIDE = "another sequence's: an encoder's states, or the image's"
    BOTH = "the sequence's, then the other's, in one softmax"


@dataclass(frozen=True)
class Call:
    """What one call of the attention attends with: all that its probabilities depend on, and the values."""

    query: Tensor  # [1, H, Q, D]
    key: Tensor  # [1, H_kv, S, D]
    value: Tensor  # [1, H_kv, S, D_v]
    mask: Tensor | None  # [1, 1 or H, Q, S] bool, or what is added to the scores; None: see `causal`
    causal: bool  # without a mask: the last query reads every key, the one before it one key less; else all read all
    scaling: float
    softcap: float | None
    bias: Tensor | None  # [1, H, Q, S] of positions, added to the scores


class Watcher:
    """What a thread installs in `watcher` to see its own forward passes, and no other thread's.

    Args:
        met: takes the ways in which the model calls its attention.
        inputs: the names of what is passed to the model's forward, which may pass it on.
    """

    explicit_masks = False  # whether a causal mask must be spelt out where SDPA would leave it implicit

    def __init__(self, model: nn.Module, met: set[Kind], inputs: Iterable[str]) -> None:
        self.model = model
        self.passed_on = POSITIONS.union(parameters(model.forward), inputs)
        self._met = met

    def called(self, module: nn.Module, tensors: frozenset[str], mask: Any) -> None:
        """Called before every attention with the names of its tensor keywords. Raises ModelError for unknown ones."""
        own = tensors - self.passed_on
        unknown = own - APPLIED
        if unknown:
            raise ModelError(
                f"{type(module).__name__} gives its attention {' and '.join(sorted(unknown))} beside queries, keys and "
                "values (sinks, sparse indices or the like), which dexar_fast does not apply: it is not supported"
            )
        self._met.add((type(module), own, mask_kind(mask)))

    def mask(self, module: nn.Module, mask: Tensor | None) -> Tensor | None:
        """Called before every attention with its mask [1, 1, Q, S]; returns the mask to use."""
        return mask

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        """Called after every attention with its output [1, Q, H, D]; returns the output to go on with."""
        return output


def tensors_in(keywords: Mapping[str, Any]) -> frozenset[str]:
    """The names of the keywords that are a tensor, or hold one."""
    return frozenset(name for name, value in keywords.items() if _holds_tensor(value))


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(map(_holds_tensor, value)))


def mask_kind(mask: Any) -> str:
    """How SDPA reads a mask: "allowed" keys (no mask is causal) or "added" scores; "by head" if it has such an axis."""
    if mask is None:
        return "allowed"
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        return type(mask).__name__
    kind = "allowed" if mask.dtype == torch.bool else "added"
    return f"{kind} by head" if mask.shape[1] > 1 else kind


watcher: ContextVar[Watcher | None] = ContextVar("dexar_fast_watcher", default=None)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The AttentionInterface function: [B, H, Q, D] queries to an output [B, Q, H, D]."""
    watching = watcher.get()
    if watching is not None:
        watching.called(module, tensors_in(kwargs), attention_mask)
        attention_mask = watching.mask(module, attention_mask)
    softcap = kwargs.pop("softcap", None)
    if softcap is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    elif kwargs.get("position_bias") is not None:
        raise ModelError(f"{type(module).__name__} adds a bias of positions to capped scores: it is not supported")
    else:
        output = softcapped_attention(query, key, value, attention_mask, kwargs.get("scaling"), softcap)
    if watching is not None:
        output = watching.attention(module, output, _call(module, query, key, value, attention_mask, softcap, kwargs))
    return output, None


def _call(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    softcap: float | None,
    kwargs: Mapping[str, Any],
) -> Call:
    scaling, causal = kwargs.get("scaling"), kwargs.get("is_causal")
    return Call(
        query,
        key,
        value,
        mask,
        causal=getattr(module, "is_causal", True) if causal is None else causal,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
        bias=kwargs.get("position_bias"),
    )


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
    """The last `queries` rows of one sequence's mask as [Q, S] bool; no mask means causal.

    Raises:
        ModelError: heads that attend to different keys.
    """
    if mask is None:
        return causal(queries, keys, device)
    mask = mask[0, :, -queries:, :keys]
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    if len(seen) > 1 and not bool((seen == seen[:1]).all()):
        raise ModelError("the heads of a layer attend to different keys (sparse attention): it is not supported")
    return seen[0]


def readable(call: Call, queries: int) -> Tensor:
    """[Q, S] bool: which keys the last `queries` of a call may read; without a mask those of SDPA's own rule."""
    keys, device = call.value.shape[2], call.value.device
    if call.mask is not None:
        return attendable(call.mask, queries, keys, device)
    whole = torch.ones(call.query.shape[2], keys, dtype=torch.bool, device=device)
    return (whole.tril() if call.causal and len(whole) > 1 else whole)[-queries:]


def check_keys(module: nn.Module, value: Tensor, keys: int) -> None:
    """Raises ModelError if the values [1, H_kv, S, D] are not those of a sequence of `keys` tokens."""
    if value.shape[2] != keys:
        raise ModelError(
            f"{type(module).__name__} reads {value.shape[2]} keys where the sequence has {keys}: "
            "cross-attention and caches that drop keys are not supported"
        )


def is_causal(module: nn.Module, mask: Tensor | None, keys: int) -> bool:
    """Whether no query of a mask [1, 1, Q, S] reads a key behind it; the last query stands at the last key."""
    if mask is None:
        return bool(getattr(module, "is_causal", True))  # SDPA's own rule: no mask and False: all keys
    queries = mask.shape[-2]
    return not bool((attendable(mask, queries, keys, mask.device) & ~causal(queries, keys, mask.device)).any())


def reads_on(mask: Tensor | None, prompt: int, keys: int) -> bool:
    """Whether a token of the prompt reads one behind the prompt, by a mask [1, 1, S, S] of the whole sequence."""
    return mask is None or bool(attendable(mask, keys, keys, mask.device)[:prompt, prompt:].any())


def attention_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """SDPA's mask; the watched pass needs it spelt out where SDPA would leave a causal one implicit."""
    watching = watcher.get()
    if watching is not None and watching.explicit_masks:
        kwargs["allow_is_causal_skip"] = False
    return sdpa_mask(*args, **kwargs)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, attention_mask)
