"""Given answers of several requests in one forward: prompt and answer of each a segment of one row, without padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.attribution.calls.gradients import Attended
from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.attribution.calls.rows import Part, Rows, Span
from dexar_fast.attribution.calls.segments import Segments
from dexar_fast.attribution.layer_pass import Pass
from dexar_fast.attribution.tails.trust import Tails
from dexar_fast.errors import NumericalError
from dexar_fast.model.attention import Call
from dexar_fast.model.logits import chosen_logits
from dexar_fast.model.prefill import Prefill


def explain(
    model: Any,
    prompt: Prefill,
    plans: Sequence[Plan],
    tails: Tails,
    segments: Segments,
    answers: Sequence[Tensor],
) -> tuple[list[Any], Tensor]:
    """The sums of each answer [T], and the last logits [B, V] of each segment.

    Args:
        prompt: the row, postponed: each answer but for its last token behind its prompt. plans: of each segment.
        tails: all trusted, so no layer needs autograd.
    Raises:
        Outdated: what was found about the model no longer holds.
    """
    assert prompt.pending is not None
    with Packed(model, prompt, plans, tails, segments).hooked() as running:
        return running.explain(prompt.pending.inputs, answers), running.logits


class Packed(Pass):
    """The pass over a row of segments."""

    def __init__(self, model: Any, prompt: Prefill, plans: Sequence[Plan], tails: Tails, segments: Segments) -> None:
        super().__init__(model, prompt, plans, tails)
        self._rows = Rows(plans, cached=False)
        self._segments = segments
        self._positions: Tensor  # [C] of the explained queries in the row
        self._ends: Tensor  # where the last logits of each segment stand among those computed
        self.logits: Tensor

    @contextmanager
    def hooked(self) -> Iterator[Packed]:
        with super().hooked():
            yield self

    def explain(self, inputs: Mapping[str, Any], answers: Sequence[Tensor]) -> list[Any]:
        counts, device = [len(answer) for answer in answers], inputs["input_ids"].device
        ends = [each.stop for each in self._segments.slices]
        rows = [torch.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]
        self._positions = torch.cat(rows).to(device)
        passed, self._ends = chosen_logits(self.model, torch.tensor(ends, device=device) - 1, ends[-1])
        targets = torch.cat(list(answers)).to(inputs["input_ids"])[None]
        forward = partial(self._forward, {**inputs, **passed})
        return self._run(ends[-1] - sum(counts), targets, forward, 0, self._spans(counts))

    def _forward(self, inputs: dict[str, Any], cache: Any) -> None:
        self.model(**inputs, use_cache=False)  # over a cache segments would read each other

    def _spans(self, counts: Sequence[int]) -> list[Span]:
        queries = Segments(counts).slices
        return [Span(0, keys, mine) for keys, mine in zip(self._segments.keys, queries, strict=True)]

    def make_mask(self, arguments: dict[str, Any]) -> Any:
        return self._segments.make_mask(arguments)

    def attend(self, module: nn.Module, call: Call, keywords: Mapping[str, Any]) -> Tensor:
        return self._segments.attend(module, call, keywords)

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        """Keeps the attention output of the C queries."""
        index = self._turns.of_attention(module)
        if index in self._plan.layers:
            self._attended[index] = Attended(output, self._read(output), self._parts_of(index, module, call))
        return output

    def _parts_of(self, index: int, module: nn.Module, call: Call) -> list[Part]:
        return self._rows.own_parts(module, self._segments.calls, self._check_order)

    def _explained(self, queries: int) -> Tensor:
        return self._positions

    def _read(self, rows: Tensor) -> Tensor:
        """The explained positions alone; a module may get just these, or the row without its axis of one."""
        whole = rows if rows.ndim > 2 else rows[None]
        return whole if whole.shape[1] == len(self._positions) else whole[:, self._positions.to(whole.device)]

    def _check(self) -> None:
        if not bool(self._hidden.isfinite().all()):  # of one of the segments; the layers are as they were
            raise NumericalError("NaN or infinity in what the decoder gives")
        super()._check()

    def _keep_logits(self, module: nn.Module, args: Any, output: Any) -> None:
        super()._keep_logits(module, args, output)
        self.logits = output.logits[0, self._ends].detach()
