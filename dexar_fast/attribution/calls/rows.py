"""The rows of a batch: each has keys, queries and sums of its own, as if it ran alone."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.attribution.calls.keys import KeysOfCalls
from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.attribution.sums import Sums
from dexar_fast.backends.operands import HeadGroups, Keys
from dexar_fast.model.attention import Call, Side

Check = Callable[[nn.Module, Call], None]


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
    """Where a row stands in a batch of S keys, of which the last C queries are explained."""

    padding: int  # keys in front of its own
    queries: slice  # of the C, its own


@dataclass(frozen=True)
class Part:
    """A row's part of a call, a batch of 1 that ends with the row's last query, and the keys that its queries score."""

    call: Call
    keys: Keys | HeadGroups


class Row:
    """One row: what it computes, and what it has of the calls that run."""

    def __init__(self, index: int, plan: Plan) -> None:
        self.index = index
        self.plan = plan
        self.keys = KeysOfCalls(plan)
        self.sums: Sums
        self.span: Span
        self._masks: dict[int, tuple[Any, Tensor]] = {}  # by the id of the batch's, with a reference to it

    def begin(self, span: Span) -> None:
        """Called before each forward."""
        self.span, self.sums = span, self.plan.sums()
        self.keys.forget()
        self._masks.clear()

    @property
    def count(self) -> int:
        """How many of its queries are explained."""
        return self.span.queries.stop - self.span.queries.start

    def part(self, call: Call, columns: int) -> Call:
        """Its part of a call whose last `columns` queries are explained."""
        beyond = columns - self.span.queries.stop
        if len(call.query) == 1 and not beyond and not self.span.padding:
            return call
        keys = slice(self.span.padding, call.key.shape[2] - beyond)
        last = call.query.shape[2] - beyond
        queries = slice(max(0, last - (keys.stop - keys.start)), last)
        mine = slice(self.index, self.index + 1)
        return replace(
            call,
            query=call.query[mine, :, queries],
            key=call.key[mine, :, keys],
            value=call.value[mine, :, keys],
            mask=None if call.mask is None else self._mask(call.mask, queries, keys),
            bias=None if call.bias is None else self._of(call.bias, queries)[..., keys],
            sinks=None if call.sinks is None else self._of(call.sinks, queries),
        )

    def _mask(self, mask: Tensor, queries: slice, keys: slice) -> Tensor:
        """The same tensor for all layers that share the batch's mask: `KeysOfCalls` knows masks by their identity."""
        known = self._masks.get(id(mask))
        if known is None or known[0]() is not mask:
            known = self._masks[id(mask)] = weakref.ref(mask), self._of(mask, queries)[..., keys]
        return known[1]

    def _of(self, tensor: Tensor, queries: slice) -> Tensor:
        """[1, .., Q, ..] of what rows or queries may share."""
        mine = tensor if len(tensor) == 1 else tensor[self.index : self.index + 1]
        return mine if tensor.shape[2] == 1 else mine[:, :, queries]


class Rows:
    """The rows of a batch of B.

    Args:
        plans: of each row. A shorter prompt has padding in front.
    """

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.prompt = max(plan.prompt for plan in plans)
        self._rows = [Row(index, plan) for index, plan in enumerate(plans)]
        self._running: list[Row] = []  # those with a query in the forward that runs
        self._columns = 0

    def begin(self, spans: Sequence[Span], columns: int) -> None:
        """Called before a forward that explains C = `columns` queries of each row, or fewer where its answer ends."""
        self._columns = columns
        for row, span in zip(self._rows, spans, strict=True):
            row.begin(span)
        self._running = [row for row in self._rows if row.count]

    def behind(self, answers: Answers, done: int, columns: int) -> list[Span]:
        """The spans of the next tokens behind those that are done, of prompts that end side by side."""
        left = [max(0, min(columns, length - done)) for length in answers.lengths]
        return [Span(self.prompt - row.plan.prompt, slice(0, n)) for row, n in zip(self._rows, left, strict=True)]

    def ending(self, length: int, counts: Sequence[int]) -> list[Span]:
        """The spans of whole answers of so many tokens, which end side by side in a batch `length` long."""
        longest, first = max(counts), length + 1
        return [
            Span(first - row.plan.prompt - count, slice(longest - count, longest))
            for row, count in zip(self._rows, counts, strict=True)
        ]

    def attention_mask(self, keys: int, device: torch.device) -> dict[str, Tensor]:
        """The argument [B, keys] of a forward that hides the padding; none where there is none."""
        paddings = [row.span.padding for row in self._rows]
        if not any(paddings):
            return {}
        first = torch.tensor(paddings, device=device)[:, None]
        return {"attention_mask": (torch.arange(keys, device=device) >= first).long()}

    def parts(self, module: nn.Module, call: Call, side: Side, keys: int, check: Check) -> list[Part]:
        """What each running row has of a call, in a batch whose own sequence is `keys` long so far.

        Args:
            check: called with each call of an order of keys that is new.
        """
        return [self._part(row, module, call, side, keys, check) for row in self._running]

    def _part(self, row: Row, module: nn.Module, call: Call, side: Side, keys: int, check: Check) -> Part:
        own = row.part(call, self._columns)
        if side is Side.OWN and not row.keys.knows(own):
            check(module, own)
        return Part(own, row.keys.of(module, own, side, row.count, self._length(row, keys)))

    def _length(self, row: Row, keys: int) -> int:
        """How many of the batch's keys are the row's own."""
        return keys - row.span.padding - (self._columns - row.span.queries.stop)

    def score(self, u: Tensor, parts: Sequence[Part]) -> None:
        """Takes a call's u [B, C, H, D]."""
        for row, part in zip(self._running, parts, strict=True):
            row.sums.layer(u[row.index, row.span.queries], part.call, part.keys)

    def attributions(self, keys: int) -> list[Any]:
        """What the sums of each row make of all layers; None of a row that has ended."""
        return [row.sums.attribution(self._length(row, keys)) if row.count else None for row in self._rows]
