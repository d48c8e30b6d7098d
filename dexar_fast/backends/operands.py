"""What the operations on one layer take and give: keys, attention, scores, and sums over layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class KeyLists:
    """The keys of a chunk as the fused kernels take them (`operators.head_score`)."""

    visual: Tensor  # [N] int32 positions
    text: Tensor  # [M] int32 positions
    first: Tensor  # [C] int32
    last: Tensor  # [C] int32
    mask: Tensor | None  # [C, S] bool; None if each query attends to all keys from first to last


@dataclass(frozen=True)
class KeyRun:
    """The same without lists: query t reads all S keys but the last C - 1 - t. What is not visual is text."""

    visual: slice  # which every query reads
    mask: None = None  # as of `KeyLists`


@dataclass(frozen=True)
class Masked:
    """The keys of a chunk as the torch backend takes them; a mask of None hides nothing."""

    visual: Tensor | slice  # [N]
    text: Tensor | None  # [M]; None: all S keys, of which the mask hides those that are no text
    visual_hidden: Tensor | None  # [C, N] bool
    text_hidden: Tensor | None  # [C, M or S] bool

    @property
    def widest(self) -> int:
        """The larger of N and M, or S."""
        if self.text is None:
            assert self.text_hidden is not None
            return self.text_hidden.shape[1]
        run = self.visual
        return max(run.stop - run.start if isinstance(run, slice) else len(run), len(self.text))

    def of_queries(self, rows: slice) -> Masked:
        """The same keys for some of the queries."""
        of_visual, of_text = (None if mask is None else mask[rows] for mask in (self.visual_hidden, self.text_hidden))
        return Masked(self.visual, self.text, of_visual, of_text)


@dataclass(frozen=True)
class Keys:
    """The keys that the C queries of a chunk score: N visual, M text."""

    visual: Tensor | slice  # [N] positions; a slice where they are consecutive, so that V is read in place
    text: Tensor  # [M] positions
    attendable: Tensor  # [C, S] bool
    numbers: Tensor | None = None  # [S] what each key is called in the result; None: by its position
    # whether it is known, without a look at `attendable`, that the last query reads every key, each before it one less
    causal: bool = False

    @property
    def has_image(self) -> bool:
        """Whether there are visual keys among them."""
        run = self.visual
        return (run.stop - run.start if isinstance(run, slice) else len(run)) > 0

    @classmethod
    def of(cls, visual: Tensor, text: Tensor, attendable: Tensor) -> Keys:
        """From positions [N], [M] in ascending order on the CPU and what each query may read, [C, S] bool."""
        device = attendable.device
        return cls(placed(run_of(visual), device), text.to(device), attendable)

    @cached_property
    def masked(self) -> Masked:
        """The keys with what is hidden of them; None where that is nothing.

        Off the CPU, where a launch costs more than a product, an image that is one run shares a product with the text.
        """
        seen = self.attendable
        of_visual = None if self._sees_image or surely(seen[:, self.visual]) else ~seen[:, self.visual]
        if seen.device.type != "cpu" and isinstance(self.visual, slice) and self.has_image:
            is_text = torch.zeros(seen.shape[1], dtype=torch.bool, device=seen.device).index_fill_(0, self.text, True)
            return Masked(self.visual, None, of_visual, ~(seen & is_text))
        of_text = seen[:, self.text]
        return Masked(self.visual, self.text, of_visual, None if surely(of_text) else ~of_text)

    @property
    def _sees_image(self) -> bool:
        """Whether it is known that every query reads every visual key."""
        queries, keys = self.attendable.shape
        return self.causal and isinstance(self.visual, slice) and self.visual.stop <= keys - queries + 1

    @cached_property
    def run(self) -> KeyRun | None:
        """The keys without lists, if they are known to be such."""
        run, all_keys = self.visual, self.attendable.shape[1]
        if isinstance(run, slice) and self._sees_image and run.stop - run.start + len(self.text) == all_keys:
            return KeyRun(run)
        return None

    @cached_property
    def lists(self) -> KeyLists:
        """The keys as lists and bounds; without a mask if each query's keys are consecutive, as in a window."""
        seen, (queries, keys) = self.attendable, self.attendable.shape
        position = torch.arange(keys, dtype=torch.int32, device=seen.device)
        if self.causal:
            first = torch.zeros_like(position[:queries])
            return KeyLists(position[self.visual], self.text.int(), first, position[keys - queries :], None)
        first = torch.where(seen, position, keys).amin(1).int()
        last = torch.where(seen, position, -1).amax(1).int()
        runs = (last - first + 1 == seen.sum(1)).logical_or(last < 0)
        return KeyLists(position[self.visual], self.text.int(), first, last, None if surely(runs) else seen)


@dataclass(frozen=True)
class HeadGroups:
    """The keys of a layer whose heads read different ones (block-sparse attention): groups of heads that read alike."""

    groups: tuple[tuple[Tensor, Keys], ...]  # heads [h], and what they score

    @property
    def text(self) -> Tensor:
        """[M] positions of the text keys, the same in each group."""
        return self.groups[0][1].text

    @property
    def has_image(self) -> bool:
        """Whether there are visual keys among them."""
        return self.groups[0][1].has_image

    @property
    def numbers(self) -> Tensor | None:
        """[S] what each key is called in the result; None: by its position."""
        return self.groups[0][1].numbers

    @property
    def order(self) -> Tensor:
        """[H] where each head stands when the groups stand one behind the other."""
        return torch.cat([heads for heads, _ in self.groups]).argsort()

    def map(self, change: Callable[[Keys], Keys]) -> HeadGroups:
        """The same heads with other keys."""
        return HeadGroups(tuple((heads, change(keys)) for heads, keys in self.groups))


def keys_of_heads(
    visual: Tensor | slice, text: Tensor, attendable: Tensor, numbers: Tensor | None = None, *, causal: bool = False
) -> Keys | HeadGroups:
    """From positions [N], [M], and what each query of each head may read, or of all heads, [H or 1, C, S] bool.

    Args:
        numbers: [S] what each key is called in the result; None: by its position.
        causal: as of `Keys`.
    """
    if len(attendable) == 1:
        return Keys(visual, text, attendable[0], numbers, causal)
    kinds, group = attendable.unique(dim=0, return_inverse=True)
    if len(kinds) == 1:
        return Keys(visual, text, kinds[0], numbers)
    heads = [(group == index).nonzero()[:, 0] for index in range(len(kinds))]
    return HeadGroups(tuple((some, Keys(visual, text, kind, numbers)) for some, kind in zip(heads, kinds, strict=True)))


@dataclass(frozen=True)
class Attention:
    """What is needed to recompute one layer's attention probabilities A = exp(scale <q, k> - L) for C queries."""

    query: Tensor  # [C, H, D]
    key: Tensor  # [H_kv, S, D]
    log_sum_exp: Tensor  # [C, H] L
    scale: float

    def of_heads(self, heads: Tensor) -> Attention:
        """The same for some of the heads [h]."""
        share = self.query.shape[1] // len(self.key)
        return Attention(self.query[:, heads], self.key[heads // share], self.log_sum_exp[:, heads], self.scale)

    def of_queries(self, rows: slice) -> Attention:
        """The same for some of the queries."""
        return Attention(self.query[rows], self.key, self.log_sum_exp[rows], self.scale)


@dataclass(frozen=True)
class Layer:
    """What a layer is scored from."""

    u: Tensor  # [C, H, D]
    value: Tensor  # [H_kv, S, D]
    keys: Keys | HeadGroups

    @property
    def kind(self) -> tuple[Any, ...]:
        """What is alike in layers that one launch can score."""
        return id(self.keys), *((x.shape, x.stride(), x.dtype, x.device, x.is_neg()) for x in (self.u, self.value))


@dataclass(frozen=True)
class MapSums:
    """The sums that layers add their maps to, dense, float32 or better."""

    both: Tensor  # [2, C, N] sums of E and U

    @classmethod
    def zeros(cls, u: Tensor, visual: int) -> MapSums:
        """For layers whose u [C, H, D] is of this dtype and on this device, over N visual keys."""
        return cls(u.new_zeros((2, len(u), visual), dtype=torch.promote_types(u.dtype, torch.float32)))

    @property
    def token_map(self) -> Tensor:
        """[C, N] sum of E."""
        return self.both[0]

    @property
    def unfiltered_map(self) -> Tensor:
        """[C, N] sum of U."""
        return self.both[1]

    def of_queries(self, rows: slice) -> MapSums:
        """The same memory for some of the queries."""
        return MapSums(self.both[:, rows])


@dataclass(frozen=True)
class LayerScores:
    """The results of one layer for a chunk of C tokens, apart from its maps; float32 or better."""

    visual_score: Tensor  # [C, H]
    text_score: Tensor  # [C, H]
    text_winner: Tensor  # [C, H] position of the text key with the largest gradient; -1 where none is positive
    range: Tensor | None  # [2] smallest and largest G over the visual keys, if asked for


@dataclass(frozen=True)
class ScoredLayer:
    """One layer's scores and its maps, of T queries over N visual keys; float32 or better."""

    visual_score: Tensor  # [T, H] S_img
    text_score: Tensor  # [T, H] S_txt
    text_winner: Tensor  # [T, H] int64 position of the text key with the largest gradient; -1 where none is positive
    token_map: Tensor  # [T, N] E = sum_h relu(S_img - S_txt) G
    unfiltered_map: Tensor  # [T, N] U = sum_h G


def total_range(ranges: list[Tensor]) -> Tensor:
    """[2] smallest and largest of several [2]."""
    lowest, highest = torch.stack(ranges).unbind(1)
    return torch.stack([lowest.min(), highest.max()])


def run_of(positions: Tensor) -> Tensor | slice:
    """Ascending positions on the CPU; as a slice where they are consecutive."""
    first, last = (int(positions[0]), int(positions[-1])) if len(positions) else (0, -1)
    return slice(first, last + 1) if last + 1 - first == len(positions) else positions


def placed(positions: Tensor | slice, device: torch.device) -> Tensor | slice:
    """What `run_of` returned, for tensors on a device."""
    return positions if isinstance(positions, slice) else positions.to(device)


def surely(facts: Tensor) -> bool:
    """Whether all are known to be true. Facts on a GPU are not read: a layer would have to wait for them."""
    return facts.device.type == "cpu" and bool(facts.all())
