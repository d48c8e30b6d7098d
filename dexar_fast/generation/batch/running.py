"""One batch: its answers, written or given, and the explanation of each over the batch's own keys."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dexar_fast.attribution import engine, packed
from dexar_fast.attribution.calls.rows import Answers
from dexar_fast.attribution.tails.trust import Tails
from dexar_fast.errors import reason
from dexar_fast.explanation import Explanation
from dexar_fast.generation.batch import alike
from dexar_fast.generation.batch.joining import IDS, joined, kind_of
from dexar_fast.generation.batch.packing import NOT_PACKED, goes_packed, row_of, tails_of
from dexar_fast.generation.batch.sharing import opened, room_in_pool
from dexar_fast.generation.batch.writing import first_logits, run_prompts, write
from dexar_fast.generation.generate import EmptyAnswer
from dexar_fast.generation.runner import Runner
from dexar_fast.generation.scheduler import Begun
from dexar_fast.model.agreement import agreement_of
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.lending.session import Loan, borrowed
from dexar_fast.model.memory import fitting
from dexar_fast.model.prefill import Prefill, Prefix, postponed, with_answer
from dexar_fast.prompt.inputs import check_scored, embedding_checked


class Batch:
    """Requests of one kind that run side by side, on a model of known decoder; all answers are given, or none.

    Args:
        generate_kwargs: of generate(), where no answers are given.
        shares: whether the runners' pool holds the beginnings of all prompts, pictures included.
    """

    def __init__(
        self,
        model: Any,
        decoder: Decoder,
        runners: Sequence[Runner],
        generate_kwargs: dict[str, Any],
        shares: bool = False,
    ) -> None:
        self._model = model
        self._decoder = decoder
        self._runners = runners
        self._generate_kwargs = generate_kwargs
        self._shares = shares
        self._laps = [runner.laps() for runner in runners]
        self._prompts = [runner.request.inputs for runner in runners]
        self._fillers = [_filler(runner) for runner in runners]
        self._targets = [x for x in (runner.request.targets for runner in runners) if x is not None]
        self._chunk = max(1, min(runner.chunk for runner in runners) // len(runners))  # tokens of each row at once

    def explain(self) -> list[Explanation | Exception]:
        """In the order of the requests; an EmptyAnswer where the model ends an answer at once.

        Raises:
            Mixed: the model computes something else in a batch. Outdated: it was changed since its decoder was found.
            Else what any of the requests raises.
        """
        with borrowed(self._model) as loan, ExitStack() as stack, fitting("a batch"):
            for inputs in self._prompts:
                stack.enter_context(embedding_checked(self._model, inputs[IDS]))
            begun = self._packed(stack, loan) or self._behind(stack, loan)
            longest = max(self._prompts, key=lambda inputs: inputs[IDS].shape[1])
            agreement_of(self._model).check(self._model, longest, loan)
            self._lap("explain")
        return [each.record.explanation() if len(each.record) else EmptyAnswer() for each in begun]

    @property
    def _lengths(self) -> list[int]:
        return [inputs[IDS].shape[1] for inputs in self._prompts]

    def _lap(self, part: str) -> None:
        for laps in self._laps:
            laps.lap(part)

    def _begun(self, stack: ExitStack, in_a_row: bool = False) -> list[Begun]:
        """What the pass computes for each request; the stack closes the records."""
        how: dict[str, Any] = {"batch": len(self._runners), "packed": in_a_row}
        begun = [runner.begun(laps, **how) for runner, laps in zip(self._runners, self._laps, strict=True)]
        for each in begun:
            stack.enter_context(each.record)
        return begun

    def _packed(self, stack: ExitStack, loan: Loan) -> list[Begun] | None:
        """Explains given answers as segments of one row; None where that is not possible."""
        tails, count = tails_of(self._runners[0].setup, self._decoder), sum(map(len, self._targets))
        if not all(goes_packed(each, tails, count) for each in self._runners):
            return None
        ways = [("packed", self._shares, loan.attention, masked, kind_of(self._prompts[0])) for masked in (False, True)]
        try:
            known = [alike.is_known(self._model, way) for way in ways]
            return self._in_a_row(stack, loan, tails, ways, known)
        except alike.Mixed as error:
            for runner in self._runners:
                runner.request = runner.request.noted(NOT_PACKED.format(reason(error)))
            return None

    def _in_a_row(
        self, stack: ExitStack, loan: Loan, tails: Tails, ways: Sequence[alike.Way], known: Sequence[bool]
    ) -> list[Begun]:
        begun = self._begun(stack, in_a_row=True)
        whole, plans = self._with_answers(), [each.plan for each in begun]
        with room_in_pool(), ExitStack() as held:
            caches = [opened(held, runner, loan) for runner in self._runners] if self._shares else []
            inputs, segments = row_of(self._model, whole, caches)
            prompt = postponed(self._model, inputs, self._decoder, Prefix(self._model.config))
            with alike.first(self._model, ways[0]) if not any(known) else nullcontext():
                found, logits = packed.explain(self._model, prompt, plans, tails, segments, self._targets)
            if not known[segments.masked]:
                alike.compare(self._model, ways[segments.masked], whole, logits)
        for each, answer, sums in zip(begun, self._targets, found, strict=True):
            each.record.add(answer, sums)
        return begun

    def _behind(self, stack: ExitStack, loan: Loan) -> list[Begun]:
        """Explains the answers behind prompts that have run, padded on the left."""
        way = loan.attention, len(set(self._lengths)) > 1, kind_of(self._prompts[0])
        inputs = joined(self._prompts, self._fillers)
        said, prompt = self._checked(inputs, way)
        self._lap("prefill" if self._targets else "generate")
        begun = self._begun(stack)
        answers = _answers(inputs[IDS], said)
        if answers.longest:
            plans = [each.plan for each in begun]
            ids = answers.ids.cpu()
            engine.explain(self._model, prompt, plans, answers, 0, self._chunk, lambda found: _add(begun, found, ids))
        return begun

    def _checked(self, inputs: dict[str, Any], way: alike.Way) -> tuple[list[Tensor], Prefill]:
        """The answers and the prompts; in the first batch of its kind, a row's logits are compared. Raises Mixed."""
        if alike.is_known(self._model, way):
            return self._answered(inputs)
        shortest = self._lengths.index(min(self._lengths))
        with first_logits(self._model, shortest) as logits:
            found = self._answered(inputs)
        alike.compare(self._model, way, [self._prompts[shortest]], torch.stack(logits))
        return found

    def _answered(self, inputs: dict[str, Any]) -> tuple[list[Tensor], Prefill]:
        if self._targets:
            return self._targets, run_prompts(self._model, inputs, self._decoder)
        limits = [runner.longest for runner in self._runners]
        return write(self._model, inputs, self._decoder, limits, self._generate_kwargs)

    def _with_answers(self) -> list[dict[str, Any]]:
        """The inputs of each prompt with all but the last token of its answer."""
        for answer in self._targets:
            check_scored(answer, self._decoder.lens.rows)
        pairs = zip(self._prompts, self._targets, strict=True)
        return [with_answer(prompt, answer[:-1].to(prompt[IDS])) for prompt, answer in pairs]


def _answers(prompts: Tensor, said: Sequence[Tensor]) -> Answers:
    """Of prompts [B, P]; 0 stands behind the shorter ones."""
    together = pad_sequence([answer.to(prompts) for answer in said], batch_first=True)
    return Answers(torch.cat([prompts[:, -1:], together], 1), [len(answer) for answer in said])


def _add(begun: Sequence[Begun], found: Sequence[Any], ids: Tensor) -> None:
    """Hands a chunk's sums, and the ids behind those explained before, to the records of ids [B, 1 + T]."""
    for row, sums, each in zip(ids, found, begun, strict=True):
        if sums is not None:
            first = 1 + len(each.record)
            each.record.add(row[first : first + len(sums.token_maps)], sums)


def _filler(runner: Runner) -> int:
    """An id of the prompt that stands for no part of an image."""
    visual = set(runner.placed.positions.tolist())
    return next(token for position, token in enumerate(runner.request.ids) if position not in visual)
