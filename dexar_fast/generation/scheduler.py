"""Explains an answer while generate() writes it, or afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from dexar_fast.attribution import engine
from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.attribution.calls.rows import Answers
from dexar_fast.explanation import Explanation
from dexar_fast.kvcache.rewind import rewound
from dexar_fast.model.prefill import Prefill, Trail


class Record(Protocol):
    """The tokens explained so far. As a context manager it notes at the end whether the answer is complete."""

    def __len__(self) -> int: ...

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def add(self, ids: Tensor, sums: Any) -> Any:
        """Takes the next tokens [C] and what the plan's sums made of them; returns a chunk, which has their `ids`."""
        ...

    def fields(self, chunks: Sequence[Any]) -> dict[str, Any]:
        """The fields of an Explanation of the tokens of these chunks alone."""
        ...

    def explanation(self) -> Explanation:
        """All that is explained so far. Raises InputError where nothing is."""
        ...

    def save(self) -> None:
        """With a folder, writes everything to disk."""
        ...


@dataclass(frozen=True)
class Begun:
    """What the pass computes of an answer, and what keeps it."""

    plan: Plan
    record: Record


@dataclass
class AnswerExplainer:
    """Explains the tokens of one answer; `record` holds those explained so far."""

    model: Any
    plan: Plan
    chunk: int  # tokens at once
    device: torch.device  # of the ids
    record: Record
    trail: Trail = field(default_factory=Trail)

    def explain(self, prompt: Prefill, ids: list[int]) -> list[Any]:
        """Explains those of ids [1 + T], the prompt's last token and the answer's, that are not explained yet."""
        chunks: list[Any] = []
        answers = Answers.one(torch.tensor(ids, device=self.device))

        def take(found: list[Any]) -> None:
            (sums,) = found
            begin = 1 + len(self.record)
            chunks.append(self.record.add(torch.tensor(ids[begin : begin + len(sums.token_maps)], device="cpu"), sums))

        prompt = replace(prompt, trail=self.trail)
        self.chunk = engine.explain(self.model, prompt, [self.plan], answers, len(self.record), self.chunk, take)
        return chunks


class ChunkScheduler:
    """Explains an answer in pieces.

    Args:
        start: makes the AnswerExplainer, once generate() has run the prompt or `finish` gets one.
        last: the id of the prompt's last token.
        size: tokens of a piece; once generate() has ended, a piece may be as long as the AnswerExplainer's chunk.
        hand: takes the chunks of each piece. check: called at each token, to stop by an exception.
    """

    def __init__(
        self,
        start: Callable[[Prefill], AnswerExplainer],
        last: int,
        size: int,
        hand: Callable[[list[Any]], None] = lambda chunks: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._start = start
        self._size = size
        self._hand = hand
        self._check = check
        self._ids = [last]  # and those of the answer
        self._explainer: AnswerExplainer | None = None
        self._prompt: Prefill | None = None

    def __call__(self, token: int, prompt: Prefill) -> None:
        """Takes the next token, which has not run yet; those before it are in the cache."""
        self._ids.append(token)
        self._prompt = prompt
        self._check()
        if self._left() < self._size or not self._holds(prompt, len(self._ids) - 2):
            return
        explainer = self._started(prompt)
        explainer.trail.open = True
        with rewound(prompt.cache, explainer.plan.backend) as cache:
            chunks = explainer.explain(replace(prompt, cache=cache), self._ids)
        self._hand(chunks)

    def finish(self, answer: list[int], prompt: Prefill) -> None:
        """Explains what is left of the answer when generate() is done with the cache."""
        self._ids[1:] = answer
        explainer = self._started(prompt)
        explainer.trail.open = False
        while self._left():
            self._check()
            end = len(self._ids) - self._left() + max(self._size, explainer.chunk)
            self._hand(explainer.explain(prompt, self._ids[:end]))

    def interrupted(self) -> None:
        """Explains what was written when generate() was stopped, and hands it to nobody."""
        prompt, left = self._prompt, self._left()
        if prompt is not None and left and self._holds(prompt, len(self._ids) - left - 2):
            self._started(prompt).explain(prompt, self._ids)

    @property
    def record(self) -> Record:
        """What is explained, once `finish` was called."""
        assert self._explainer is not None
        return self._explainer.record

    def _left(self) -> int:
        """How many tokens of the answer are not explained."""
        return len(self._ids) - 1 - (0 if self._explainer is None else len(self._explainer.record))

    def _holds(self, prompt: Prefill, tokens: int) -> bool:
        """Whether the cache has the prompt and so many tokens of the answer: generate() may keep its keys elsewhere."""
        started = self._started(prompt)
        return prompt.cache is None or prompt.cache.get_seq_length() >= started.plan.prompt + tokens

    def _started(self, prompt: Prefill) -> AnswerExplainer:
        self._explainer = self._explainer or self._start(prompt)
        return self._explainer
