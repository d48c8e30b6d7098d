"""u of a layer's queries: by the formula of its tail, or by autograd through what was recorded of it, or runs again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.attribution.calls.rows import Part
from dexar_fast.attribution.gradients import (
    check_gradient,
    go_on_recording,
    gradient,
    is_narrowed,
    own_gradients,
    reach,
)
from dexar_fast.attribution.tails.block import check_norms_twice
from dexar_fast.attribution.tails.rerun import differ, kept, rerun
from dexar_fast.attribution.tails.trust import Tails, agrees
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.lens.program import Outdated
from dexar_fast.model.memory import is_out_of_memory


@dataclass(frozen=True)
class Attended:
    """A call of attention in a layer that runs: its output, that at the explained queries, what each row has of it."""

    output: Tensor  # [B, Q, H, D]
    leaf: Tensor  # [B, C, H, D]
    parts: list[Part]


@dataclass(frozen=True)
class Run:
    """One run of a layer whose last C positions are explained."""

    layer: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    hidden: Tensor  # [B, Q, d] what it gave, or streams of it
    calls: Mapping[int, Attended]  # by their indices
    targets: Tensor  # [B, C]
    states: Tensor | None  # [B, C, n, d] of earlier layers, where the lens reads such
    against: Tensor | None = None  # [C] ids whose logits are taken off; B = 1

    @property
    def last(self) -> int:
        """The index of its last call."""
        *_, last = self.calls
        return last

    @property
    def whole(self) -> bool:
        """Whether it ran over more positions than are explained."""
        return self.calls[self.last].output.shape[1] > self.targets.shape[1]


class CallGradients:
    """The VJPs of one pass.

    Args:
        norm_twice: whether the last layer's output is normed twice, as by the authors' code.
    """

    def __init__(self, decoder: Decoder, tails: Tails, norm_twice: bool) -> None:
        self._decoder = decoder
        self._tails = tails
        self._norm_twice = norm_twice
        self._differ: list[Tensor] = []  # of each layer that ran again: whether it gave something else

    def records(self, index: int, whole: bool) -> bool:
        """Whether autograd records the layer behind a call while it runs; whole: as of `Run`."""
        return not (self._tails.trusts(index) or (whole and self._runs_again(index)))

    def _runs_again(self, index: int) -> bool:
        return self._tails.is_untouched(index) and self._decoder.rerun.get(self._decoder.layers[index], False)

    def of(self, run: Run) -> dict[int, Tensor]:
        """u = d o[v_t] / d (attention output at p_t) of every query at once: [B, C, H, D], by call."""
        last, leaf = run.last, run.calls[run.last].leaf
        if self._tails.trusts(last):
            return {last: self._tails.vjp(last, run.hidden, leaf, run.targets, self._twice(last))}
        if run.whole and self._runs_again(last):
            return self._again(run)
        found = {index: self._recorded(run, index, run.hidden, each.leaf) for index, each in run.calls.items()}
        if run.hidden.ndim == 3:  # no tail is known for streams
            found[last] = self._tails.judged(last, run.hidden, leaf, run.targets, self._twice(last), found[last])
        return self._tried(run, found) if run.whole and not self._tails.trusts(last) else found

    def settle(self) -> None:
        """Checks a forward at its end. Raises Outdated if a layer that ran again did not give the same."""
        again, self._differ = self._differ, []
        if again and bool(torch.stack([each.to(again[0].device) for each in again]).any()):
            self._record_all()
            raise Outdated("layers do not give the same when they run again at the explained positions alone")

    def _record_all(self) -> None:
        self._decoder.rerun.update(dict.fromkeys(self._decoder.rerun, False))

    def _again(self, run: Run) -> dict[int, Tensor]:
        try:
            found, differs = self._rerun(run)
        except Exception as error:  # on shapes that the layer was not tried with
            if is_out_of_memory(error):
                raise
            self._record_all()
            raise Outdated(f"{type(run.layer).__name__} does not run again: {error}") from error
        self._differ.append(differs)
        return found

    def _tried(self, run: Run, expected: dict[int, Tensor]) -> dict[int, Tensor]:
        """What the layer gives when it runs again, if it agrees; else what is expected. A layer is tried once."""
        known = self._decoder.rerun
        if run.layer in known or not self._tails.is_untouched(run.last):
            return expected
        known[run.layer] = False
        try:
            with kept(run.layer), torch.no_grad():
                found, differs = self._rerun(run)
        except Exception as error:  # layers raise any kind
            if is_out_of_memory(error):
                raise
            return expected
        agree = not bool(differs) and all(agrees(found[index], u) for index, u in expected.items())
        known[run.layer] = agree and not self._is_narrowed(run)
        return found if known[run.layer] else expected

    @torch.enable_grad()
    def _is_narrowed(self, run: Run) -> bool:
        lens = self._decoder.lens
        return is_narrowed(lens.norm(lens.last(run.hidden, run.targets.shape[1]), run.states))

    def _rerun(self, run: Run) -> tuple[dict[int, Tensor], Tensor]:
        """u by call, of the layer run again; and whether it gave something else, a tensor of one bool."""
        lens, attentions = self._decoder.lens, self._decoder.attentions
        count = run.targets.shape[1]
        rows = count + max(map(self._reach, run.calls)) - 1
        outputs = {attentions[index]: call.output[:, -rows:] for index, call in run.calls.items()}
        hidden, leaves = rerun(run.layer, run.args, run.kwargs, outputs, run.hidden.shape[lens.axis])
        found = {
            index: self._recorded(run, index, hidden, leaves[attentions[index]])[:, -count:] for index in run.calls
        }
        return found, differ(lens.last(hidden, count), lens.last(run.hidden, count))

    def _recorded(self, run: Run, index: int, hidden: Tensor, leaf: Tensor) -> Tensor:
        """u of a call by autograd, through the graph that its layer recorded."""
        lens, targets = self._decoder.lens, run.targets
        go_on_recording(hidden, run.layer)
        normed = lens.norm(lens.last(hidden, targets.shape[1]), run.states)
        if self._twice(index):
            check_norms_twice(run.layer, hidden, normed, run.states)
            normed = lens.norm(normed)
        normed = normed.flatten(0, 1)[None]
        logits = lens.difference(normed, targets.flatten(), run.against)
        check_gradient(lens.head, (normed,), {}, logits)
        logits = logits.view_as(targets)
        self._measure(index, logits, leaf)
        keep, reached = index != run.last, self._reach(index)
        found = gradient(logits, leaf, run.layer, keep) if reached == 1 else own_gradients(logits, leaf, reached)
        torch.set_grad_enabled(False)
        return found

    def _twice(self, index: int) -> bool:
        return self._norm_twice and index == len(self._decoder.layers) - 1

    def _reach(self, index: int) -> int:
        """How many queries, its own included, a query reads behind the attention, as through a convolution."""
        return self._decoder.reach.get(index, (1, 1))[0]

    def _measure(self, index: int, logits: Tensor, leaf: Tensor) -> None:
        """Found where more queries run than before."""
        decoder, queries = self._decoder, logits.shape[1]
        if not self._tails.knows(index) and queries > decoder.reach.get(index, (1, 1))[1]:
            decoder.reach[index] = reach(logits, leaf), queries
