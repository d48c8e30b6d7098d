"""Parts of a call of attention: of a row of a batch, and of the sequences that stand in one row without padding.

Each of these segments attends within itself, under the mask that it has alone: the row costs what they cost alone, and
no mask of the whole row is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import sdpa_mask

from dexar_fast.model.attention import Call, attend


@dataclass(frozen=True)
class Masks:
    """The mask of each segment in the place of the row's, by the segment's first position; None is causal."""

    own: Mapping[int, Tensor | None]  # [1, 1, S, S]


class Segments:
    """Sequences of some lengths, one behind the other in a row."""

    def __init__(self, lengths: Sequence[int]) -> None:
        ends = list(accumulate(lengths))
        self.slices = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        self.length = ends[-1]
        self.masked = False  # whether one of them had a mask of its own so far

    def make_mask(self, arguments: Mapping[str, Any]) -> Any:
        """What takes the place of the row's mask, from the arguments of `sdpa_mask`: None if all are causal alone."""
        if arguments["q_length"] != self.length or arguments["kv_length"] != self.length:
            return sdpa_mask(**arguments)
        own = {each.start: _alone(arguments, each.stop - each.start) for each in self.slices}
        if all(mask is None for mask in own.values()):
            return None
        self.masked = True
        return Masks(own)

    def attend(self, module: nn.Module, call: Call, keywords: Mapping[str, Any]) -> Tensor:
        """The output [1, S, H, D] of a call of the whole row; keywords: others of the call."""
        return torch.cat([_attend(module, call, each, keywords) for each in self.slices], 1)


def _alone(arguments: Mapping[str, Any], length: int) -> Tensor | None:
    """The mask of a sequence of this length by itself."""
    return sdpa_mask(**{**arguments, "q_length": length, "kv_length": length, "attention_mask": None})


def _attend(module: nn.Module, call: Call, own: slice, keywords: Mapping[str, Any]) -> Tensor:
    mine = part(call, 0, own, own, part_of_mask(call.mask, 0, own, own))
    bias = {} if mine.bias is None else {"position_bias": mine.bias}
    return attend(module, mine, {**keywords, **bias})


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
