"""Parts of a call of attention: of a row of a batch, and of the sequences that stand in one row without padding.

Each of these segments attends within itself, under the mask that it has alone: the row costs what they cost alone, and
no mask of the whole row is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.masking_utils import sdpa_mask

from dexar_fast.model.attention import Call, attend


@dataclass(frozen=True)
class Masks:
    """The mask of each segment in the place of the row's, by the segment's first position; None is causal."""

    own: Mapping[int, Tensor | None]  # [1, 1, S, S]


class Segments:
    """Sequences, or what is left of them, one behind the other in a row.

    Args:
        lengths: of each. caches: of each, what stands before it; none where they are whole.
    """

    def __init__(self, lengths: Sequence[int], caches: Sequence[Cache] = ()) -> None:
        ends = list(accumulate(lengths))
        self.slices = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        self.calls: list[Call] = []  # of each, of the attention that ran last
        self.masked = False  # whether one of them had a mask of its own so far
        self._caches = caches
        self._known = [cache.get_seq_length() for cache in caches] or [0] * len(lengths)

    @property
    def keys(self) -> list[slice]:
        """[0, S) of each, with what stands before it."""
        return [slice(0, known + _length(each)) for known, each in zip(self._known, self.slices, strict=True)]

    def make_mask(self, arguments: Mapping[str, Any]) -> Any:
        """What takes the place of the row's mask, from the arguments of `sdpa_mask`: None if all are causal alone."""
        if arguments["q_length"] != self.slices[-1].stop or arguments["kv_length"] != self.slices[-1].stop:
            return sdpa_mask(**arguments)
        pairs = zip(self.slices, self._known, strict=True)
        own = {each.start: _alone(arguments, _length(each), known) for each, known in pairs}
        if all(mask is None for mask in own.values()):
            return None
        self.masked = True
        return Masks(own)

    def attend(self, module: nn.Module, call: Call, keywords: Mapping[str, Any]) -> Tensor:
        """The output [1, Q, H, D] of a call of the whole row; keywords: others of the call."""
        self.calls = [part(call, 0, each, each, part_of_mask(call.mask, 0, each, each)) for each in self.slices]
        if self._caches:
            pairs = zip(self.calls, self._caches, strict=True)
            self.calls = [_behind(each, cache, cast("int", module.layer_idx)) for each, cache in pairs]
        return torch.cat([attend(module, each, _of_segment(each, keywords)) for each in self.calls], 1)


def _length(own: slice) -> int:
    return int(own.stop - own.start)


def _alone(arguments: Mapping[str, Any], length: int, known: int) -> Tensor | None:
    """The mask of a sequence of this length behind known tokens, by itself."""
    own = {"q_length": length, "kv_length": known + length, "q_offset": known, "attention_mask": None}
    return sdpa_mask(**{**arguments, **own})


def _behind(call: Call, cache: Cache, layer: int) -> Call:
    """The call over the keys in a cache, too, which takes its own."""
    key, value = cache.update(call.key, call.value, layer)
    return replace(call, key=key, value=value)


def _of_segment(call: Call, keywords: Mapping[str, Any]) -> dict[str, Any]:
    return {**keywords, **({} if call.bias is None else {"position_bias": call.bias})}


def part(call: Call, row: int, queries: slice, keys: slice, mask: Tensor | None) -> Call:
    """Some queries and keys of one row of a call, as a batch of 1 under this mask."""
    mine = slice(row, row + 1)
    return replace(
        call,
        query=call.query[mine, :, queries],
        key=call.key[mine, :, keys],
        value=call.value[mine, :, keys],
        mask=mask,
        bias=None if call.bias is None else _of(call.bias, row, queries)[..., keys],
        sinks=None if call.sinks is None else _of(call.sinks, row, queries),
    )


def part_of_mask(mask: Any, row: int, queries: slice, keys: slice) -> Tensor | None:
    """The part [1, 1 or H, Q, S] of a mask that they have."""
    if isinstance(mask, Masks):
        return mask.own[keys.start]
    return None if mask is None else _of(mask, row, queries)[..., keys]


def _of(tensor: Tensor, row: int, queries: slice) -> Tensor:
    """[1, .., Q, ..] of what rows or queries may share."""
    mine = tensor if len(tensor) == 1 else tensor[row : row + 1]
    return mine if tensor.shape[2] == 1 else mine[:, :, queries]
