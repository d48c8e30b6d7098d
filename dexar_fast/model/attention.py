"""The attention function the text decoder runs while it is explained: plain SDPA, so no attention matrix is formed.

Whoever watches this thread gets each call of it, queries and keys included. The pass of METHOD.md section 2 cuts the
graph at its output, so that the layer tail behind it can be differentiated on its own.
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
from dexar_fast.model import flash
from dexar_fast.model.masks import attendable, causal, is_plain, note_plain
from dexar_fast.model.modules import parameters
from dexar_fast.model.wanted import check_wanted

NAME = "dexar_fast"


class _Eager(str):
    """A name of its own, found in the registries, that also equals "eager".

    Some families build the mask of their sparse attention under the names "eager" and "sdpa" alone; under any other
    they attend to everything, without a word.
    """

    def __eq__(self, other: object) -> bool:
        return other == "eager" or str.__eq__(self, other)

    __hash__ = str.__hash__


AS_EAGER = _Eager(NAME)
# Tensors that attention may get beside those that the model's own forward takes and passes on:
POSITIONS = frozenset({"position_ids", "cu_seq_lens_q", "cu_seq_lens_k"})  # the mask shows packed sequences, too
SINKS = ("s_aux", "sinks")  # one more score, of a head or of each query, that takes its part of the probability
APPLIED = frozenset({"position_bias", *SINKS})  # SDPA adds the bias to its scores; sinks: `in_blocks`
Kind = tuple[type, frozenset[str], str]  # of a call: the caller's class, the names of its own tensors, the kind of mask
BLOCK = 128  # query rows at a time, where SDPA does not serve: scores never take a full [S, S]


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
    sinks: Tensor | None = None  # [1, H, Q or 1, 1]


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

    def given(self, module: nn.Module) -> Tensor | None:
        """Called before every attention; an output [1, Q, H, D] to go on with in the place of its own."""
        return None

    def called(self, module: nn.Module, tensors: frozenset[str], known: frozenset[str], mask: Any) -> None:
        """Called before every attention with the names of its tensor keywords, and those of them that are known.

        Raises ModelError for others.
        """
        own = tensors - self.passed_on
        unknown = own - known
        if unknown:
            raise ModelError(
                f"{type(module).__name__} gives its attention {' and '.join(sorted(unknown))} beside queries, keys and "
                "values, which dexar_fast does not apply: it is not supported"
            )
        self._met.add((type(module), own, mask_kind(mask)))

    def mask(self, module: nn.Module, mask: Tensor | None) -> Tensor | None:
        """Called before every attention with its mask [1, 1, Q, S]; returns the mask to use."""
        return mask

    def make_mask(self, arguments: dict[str, Any]) -> Any:
        """What a model gives its attention as a mask, from the arguments of `sdpa_mask`."""
        return made_mask(arguments | ({"allow_is_causal_skip": False} if self.explicit_masks else {}))

    def attend(self, module: nn.Module, call: Call, keywords: Mapping[str, Any]) -> Tensor:
        """The output of a call; keywords: others of the module's."""
        return attend(module, call, keywords)

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        """Called after every attention with its output [1, Q, H, D]; returns the output to go on with."""
        return output


def tensors_in(keywords: Mapping[str, Any]) -> frozenset[str]:
    """The names of the keywords that are a tensor, or hold one."""
    return frozenset(name for name, value in keywords.items() if _holds_tensor(value))


def known_in(keywords: Mapping[str, Any], mask: Any) -> frozenset[str]:
    """The names of the tensor keywords that are applied, or that choose keys which the mask holds, too (indices).

    Under our name a model makes the mask that it makes under "eager"; `Agreement` compares what comes of it.
    """
    tensors = {name: value for name, value in keywords.items() if isinstance(value, Tensor)}
    indices = {name for name, value in tensors.items() if mask is not None and not value.is_floating_point()}
    return frozenset(indices | (APPLIED & tensors.keys()))


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
    check_wanted()
    watching = watcher.get()
    if watching is not None:
        given = watching.given(module)
        if given is not None:
            return given, None
        watching.called(module, tensors_in(kwargs), known_in(kwargs, attention_mask), attention_mask)
        attention_mask = watching.mask(module, attention_mask)
    softcap, sinks = kwargs.pop("softcap", None), _sinks(kwargs)
    call = _call(module, query, key, value, attention_mask, softcap, sinks, kwargs)
    if watching is None:
        return attend(module, call, kwargs), None
    return watching.attention(module, watching.attend(module, call, kwargs), call), None


def attend(module: nn.Module, call: Call, keywords: Mapping[str, Any]) -> Tensor:
    """The output [B, Q, H, D_v] of a call, by SDPA where that serves; keywords: others of the call."""
    if call.softcap is not None or call.sinks is not None:
        return in_blocks(call)
    if flash.serves(call.query, call.key) and _is_chunk(call) and not keywords.get("dropout"):
        return flash.attend(call.query, call.key, call.value, call.scaling).transpose(1, 2)
    return sdpa_attention_forward(module, call.query, call.key, call.value, call.mask, **keywords)[0]


def _is_chunk(call: Call) -> bool:
    """Whether its queries stand at the end of a longer sequence, and the mask says nothing but that."""
    if call.mask is None or call.bias is not None or call.value.shape[3] != call.key.shape[3]:
        return False
    return call.mask.shape[2:] == (call.query.shape[2], call.key.shape[2]) and is_plain(call.mask)


def _sinks(keywords: dict[str, Any]) -> Tensor | None:
    """The sinks among the keywords, as [1, H, Q or 1, 1]."""
    found = next((value for name in SINKS if (value := keywords.pop(name, None)) is not None), None)
    return found.view(1, -1, 1, 1) if found is not None and found.ndim == 1 else found


def _call(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    softcap: float | None,
    sinks: Tensor | None,
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
        sinks=sinks,
    )


def in_blocks(call: Call) -> Tensor:
    """softmax(cap tanh(q k / cap) + bias, sink) v in blocks of query rows: SDPA has neither. Returns [B, Q, H, D_v]."""
    query, groups = call.query, call.query.shape[1] // call.key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (call.key, call.value))
    output = torch.empty_like(query[..., :1].expand(*query.shape[:-1], value.shape[-1]))
    for start in range(0, query.shape[2], BLOCK):
        rows = slice(start, min(start + BLOCK, query.shape[2]))
        scores = (query[:, :, rows] * call.scaling) @ key.transpose(-1, -2)
        output[:, :, rows] = _probabilities(call, rows, scores) @ value
    return output.transpose(1, 2).contiguous()


def _probabilities(call: Call, rows: slice, scores: Tensor) -> Tensor:
    """Of the scores [B, H, rows, S] of some queries."""
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    if call.bias is not None:
        scores = scores + call.bias[:, :, rows]
    mask = _rows(call, rows)
    if mask is not None:
        lowest = torch.finfo(scores.dtype).min  # no infinity: a query of padding, which reads no key, would be NaN
        scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    found = with_sinks(scores, call.sinks, rows).softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    return found[..., : scores.shape[-1]].to(scores.dtype)


def with_sinks(scores: Tensor, sinks: Tensor | None, rows: slice | Tensor) -> Tensor:
    """Scores [B, H, rows, S] with a last column of sinks [1, H, Q or 1, 1], if there are any."""
    if sinks is None:
        return scores
    of_rows = sinks if sinks.shape[2] == 1 else sinks[:, :, rows]
    return torch.cat([scores, of_rows.to(scores).expand(*scores.shape[:-1], 1)], -1)


def _rows(call: Call, rows: slice) -> Tensor | None:
    """The mask of some queries, [.., rows, S]; None hides nothing."""
    queries, keys = call.query.shape[2], call.key.shape[2]
    if call.mask is not None:
        return call.mask[:, :, rows, :keys]
    return causal(queries, keys, call.query.device, rows) if call.causal else None


def readable(call: Call, queries: int) -> Tensor:
    """[1 or H, Q, S] bool: which keys the last `queries` of a call may read; without a mask by SDPA's own rule."""
    keys, device = call.value.shape[2], call.value.device
    if call.mask is not None:
        return attendable(call.mask, queries, keys, device)
    whole = torch.ones(call.query.shape[2], keys, dtype=torch.bool, device=device)
    return (whole.tril() if call.causal and len(whole) > 1 else whole)[None, -queries:]


def check_keys(module: nn.Module, value: Tensor, keys: int) -> None:
    """Raises ModelError if the values [1, H_kv, S, D] are not those of a sequence of `keys` tokens."""
    if value.shape[2] != keys:
        raise ModelError(
            f"{type(module).__name__} reads {value.shape[2]} keys where the sequence has {keys}: "
            "cross-attention and caches that drop keys are not supported"
        )


def attention_mask(**arguments: Any) -> Any:
    """SDPA's mask, or what this thread's watcher makes in its place."""
    watching = watcher.get()
    return made_mask(arguments) if watching is None else watching.make_mask(arguments)


def made_mask(arguments: Mapping[str, Any]) -> Tensor | None:
    """SDPA's mask, noted where it is causal and no more."""
    mask = sdpa_mask(**arguments)
    if mask is not None:
        note_plain(mask, arguments)
    return mask


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, attention_mask)
