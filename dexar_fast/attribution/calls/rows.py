"""The rows of a batch: each has keys, queries and sums of its own, as if it ran alone."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.attribution.calls.keys import KeysOfCalls
from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.attribution.calls.segments import part, part_of_mask
from dexar_fast.attribution.sums import Sums
from dexar_fast.backends.operands import HeadGroups, Keys
from dexar_fast.model.attention import Call, Side

Check = Callable[[nn.Module, Call], None]
WAITING = 128 * 2**20  # bytes of operands that wait to be scored together: as much as torch's scoring takes of scores


@dataclass(frozen=True)
class Answers:
    """The answers of B prompts, each behind its prompt's last token."""

    ids: Tensor  # [B, 1 + T]; behind a shorter answer any ids
    lengths: Sequence[int]  # of each answer

    @classmethod
    def one(cls, ids: Tensor) -> Answers:
        """From the prompt's last token and those of its answer, [1 + T]."""
        return cls(ids[None], [len(ids) - 1])

    @property
    def longest(self) -> int:
        """T."""
        return self.ids.shape[1] - 1


@dataclass(frozen=True)
class Span:
    """Where a sequence stands in a batch whose rows have S keys each, and C queries that are explained."""

    row: int  # of the batch
    keys: slice  # of the S, its own
    queries: slice  # of the C, its own


@dataclass(frozen=True)
class Part:
    """A row's part of a call, a batch of 1 that ends with the row's last query, and the keys that its queries score."""

    call: Call
    keys: Keys | HeadGroups


class Row:
    """One row: what it computes, and what it has of the calls that run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.keys = KeysOfCalls(plan)
        self.sums: Sums
        self.span: Span
        self._masks: dict[int, tuple[Any, Tensor | None]] = {}  # by the id of the batch's, with a reference to it

    def begin(self, span: Span, device: torch.device) -> None:
        """Called before each forward, of ids on this device."""
        self.span, self.sums = span, self.plan.sums()
        self.keys.begin(device)
        self._masks.clear()

    @property
    def count(self) -> int:
        """How many of its queries are explained."""
        return self.span.queries.stop - self.span.queries.start

    @property
    def length(self) -> int:
        """How many of the batch's keys are its own."""
        return self.span.keys.stop - self.span.keys.start

    def part(self, call: Call, length: int) -> Call:
        """Its part of a call of a batch that is `length` long so far."""
        keys = self.span.keys
        if len(call.query) == 1 and keys == slice(0, length):
            return call
        last = call.query.shape[2] - (length - keys.stop)
        queries = slice(max(0, last - self.length), last)
        mask = None if call.mask is None else self._mask(call.mask, queries, keys)
        return part(call, self.span.row, queries, keys, mask)

    def _mask(self, mask: Any, queries: slice, keys: slice) -> Tensor | None:
        """The same tensor for all layers that share the batch's mask: `KeysOfCalls` knows masks by their identity."""
        known = self._masks.get(id(mask))
        if known is None or known[0]() is not mask:
            known = self._masks[id(mask)] = weakref.ref(mask), part_of_mask(mask, self.span.row, queries, keys)
        return known[1]


class Rows:
    """The rows of a batch of B.

    Args:
        plans: of each row. A shorter prompt has padding in front.
        cached: whether a cache keeps the values of a forward.
    """

    def __init__(self, plans: Sequence[Plan], cached: bool) -> None:
        self.prompt = max(plan.prompt for plan in plans)
        self._rows = [Row(plan) for plan in plans]
        self._running: list[Row] = []  # those with a query in the forward that runs
        self._cached = cached
        self._length = 0  # S
        self._waiting = 0  # bytes

    def begin(self, spans: Sequence[Span], length: int, device: torch.device) -> None:
        """Called before a forward of a batch, of ids on this device, that is S = `length` keys long with it."""
        self._length, self._waiting = length, 0
        for row, span in zip(self._rows, spans, strict=True):
            row.begin(span, device)
        self._running = [row for row in self._rows if row.count]

    def behind(self, answers: Answers, done: int, columns: int) -> list[Span]:
        """The spans of the next tokens behind those that are done, of prompts that end side by side."""
        left = [max(0, min(columns, length - done)) for length in answers.lengths]
        first = self.prompt - 1 + done
        return [
            Span(row, slice(self.prompt - each.plan.prompt, first + n), slice(0, n))
            for row, (each, n) in enumerate(zip(self._rows, left, strict=True))
        ]

    def attention_mask(self, keys: int, device: torch.device) -> dict[str, Tensor]:
        """The argument [B, keys] of a forward that hides the padding; none where there is none."""
        paddings = [row.span.keys.start for row in self._rows]
        if not any(paddings):
            return {}
        first = torch.tensor(paddings, device=device)[:, None]
        return {"attention_mask": (torch.arange(keys, device=device) >= first).long()}

    def parts(self, module: nn.Module, call: Call, side: Side, check: Check) -> list[Part]:
        """What each running row has of a call.

        Args:
            check: called with each call of an order of keys that is new.
        """
        own = [row.part(call, self._length) for row in self._running]
        return self._parts(module, own, side, check)

    def own_parts(self, module: nn.Module, calls: Sequence[Call], check: Check) -> list[Part]:
        """The same from the call of each, where every row runs."""
        return self._parts(module, calls, Side.OWN, check)

    def _parts(self, module: nn.Module, calls: Sequence[Call], side: Side, check: Check) -> list[Part]:
        pairs = zip(self._running, calls, strict=True)
        return [self._part(row, module, own, side, check) for row, own in pairs]

    def _part(self, row: Row, module: nn.Module, own: Call, side: Side, check: Check) -> Part:
        if side is Side.OWN and not row.keys.knows(own):
            check(module, own)
        return Part(own, row.keys.of(module, own, side, row.count, row.length))

    def score(self, u: Tensor, parts: Sequence[Part]) -> None:
        """Takes a call's u [B, C, H, D]."""
        for row, own in zip(self._running, parts, strict=True):
            row.sums.layer(u[row.span.row, row.span.queries], own.call, own.keys)
        held = [u] if self._cached else [u, *(own.call.value for own in parts)]
        self._waiting += sum(x.numel() * x.element_size() for x in held)
        if self._waiting >= WAITING:
            self.settle()

    def settle(self) -> None:
        """Has what waits for other layers scored."""
        self._waiting = 0
        for row in self._running:
            row.sums.settle()

    def attributions(self) -> list[Any]:
        """What the sums of each row make of all layers; None of a row that has ended."""
        return [row.sums.attribution(row.length) if row.count else None for row in self._rows]
