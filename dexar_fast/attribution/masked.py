"""The probabilities of an answer's tokens under pictures of which parts are hidden, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dexar_fast.attribution.forwards.last_rows import ends_there, narrowing, wanting
from dexar_fast.attribution.forwards.workers import shares, workers
from dexar_fast.errors import InputError
from dexar_fast.model.agreement import ROUNDINGS_OF_OTHERS
from dexar_fast.model.cache import of_whole_forward, to_forward, whole_cache
from dexar_fast.model.decoder import Decoder, PromptWatcher
from dexar_fast.model.logits import chosen_logits, last_logits
from dexar_fast.model.memory import default_batch, halving
from dexar_fast.model.prefill import takes_answer, with_answer
from dexar_fast.model.teacher_forcing import counting_on

AT_A_TIME = 8  # pictures in a forward, for each thread: their activations stay in its cache
FEWEST = 4  # with fewer, starting threads takes longer than it saves
WORKERS = 8  # at most: Python's part of their forwards runs in turn
AGREE = 1e-3  # by how much a probability, and its logarithm, may differ between a batch and a picture alone

Pixels = Mapping[str, Tensor]
Make = Callable[[range], Sequence[Pixels]]


class MaskedForwards:
    """One prompt and its answer, for pictures in the place of its own.

    Args:
        inputs: of the prompt of P tokens, batch 1, on the model's device.
        answer: [T] ids, on the CPU.
        decoder: the model's. visual: [N] positions of the prompt's image, on the CPU.
        positions: [n] which tokens of the answer count. ids: [n] whose probabilities; None takes those of the answer.
        against: [T] ids for the answer's tokens: a probability is then that of the token where it is one of the two.
        batch: pictures in one forward; None takes as many as fit in 256 MiB, on the CPU in the caches of its threads.
    Raises:
        InputError: positions or ids that the answer or the vocabulary does not have.
    """

    def __init__(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        answer: Tensor,
        decoder: Decoder,
        visual: Tensor,
        positions: Tensor | None = None,
        ids: Tensor | None = None,
        batch: int | None = None,
        against: Tensor | None = None,
    ) -> None:
        self._model = model
        self._decoder = decoder
        self._at_once = takes_answer(inputs, decoder, visual)
        self._positions = torch.arange(len(answer)) if positions is None else positions
        _check(self._positions, len(answer))
        device = inputs["input_ids"].device
        self._ids = (answer[self._positions] if ids is None else ids).to(device)
        self._against = None if against is None else against[self._positions].to(device)
        self._said = answer[:-1].to(device)  # what the answer's tokens read of it
        self._inputs = with_answer(inputs, self._said) if self._at_once else dict(inputs)
        self._prompt = inputs["input_ids"].shape[1]
        length = self._prompt + len(self._said)
        self._spreads = batch is None and self._at_once and device.type == "cpu"
        self._batch = batch or default_batch(model, length, len(self._positions), decoder.lens.rows)
        if self._spreads:
            self._batch = min(self._batch, AT_A_TIME * torch.get_num_threads())
        self._checked = False

    def __call__(self, count: int, make: Make) -> Tensor:
        """[count, n] float32 on the CPU: the probabilities for each picture; softmax in float32 or better.

        Args:
            make: the pictures of some numbers, 0 to count - 1. Other threads call it, perhaps several at once.
        Raises:
            OutOfMemoryError: not even one picture fits.
        """
        with narrowing(self._decoder) if ends_there(self._decoder) else nullcontext():
            tried = range(min(2, count) if self._spreads and not self._checked else 0)
            rows = self._in_turn(tried, make) if tried else []
            rows += self._spread(range(len(tried), count), make)
        return torch.stack(rows).exp() if rows else torch.empty(0, len(self._ids))

    def _spread(self, chosen: range, make: Make) -> list[Tensor]:
        """In several threads where that pays."""
        threads = min(WORKERS, torch.get_num_threads()) if self._spreads else 1
        largest = min(AT_A_TIME, self._batch // threads)
        if threads == 1 or min(largest, len(chosen) // threads) < FEWEST:
            return self._in_turn(chosen, make)
        with workers(threads) as pool:
            found = list(pool.map(lambda part: self._fitting(make(part)), shares(chosen, threads, largest)))
        return [row for rows in found for row in rows]

    def _fitting(self, pictures: Sequence[Pixels]) -> list[Tensor]:
        """In smaller batches where memory runs out."""
        rows, _ = halving(partial(self._some, pictures), len(pictures), len(pictures))
        return rows + self._fitting(pictures[len(rows) :]) if len(rows) < len(pictures) else rows

    def _in_turn(self, chosen: range, make: Make) -> list[Tensor]:
        """Batch by batch; another thread makes one while one runs."""
        found: list[Tensor] = []
        with ThreadPoolExecutor(1, "dexar_fast.masked") as ahead:
            coming = ahead.submit(make, self._next(chosen, 0))
            while len(found) < len(chosen):
                pictures = coming.result()
                coming = ahead.submit(make, self._next(chosen, len(found) + len(pictures)))
                rows, fitted = halving(partial(self._some, pictures), self._batch, len(pictures))
                self._batch = min(self._batch, fitted)
                found += rows
                if len(rows) < len(pictures):  # memory ran out: those left are made again
                    coming = ahead.submit(make, self._next(chosen, len(found)))
        return found

    def _next(self, chosen: range, done: int) -> range:
        """The pictures of the next batch."""
        return chosen[done : done + self._batch]

    def _some(self, pictures: Sequence[Pixels], count: int) -> list[Tensor]:
        rows = self._run(pictures[:count])
        if count > 1 and not self._checked:
            self._checked = True
            alone = self._run(pictures[count - 1 : count])
            if not self._agree(rows[-1], alone[0]):  # the model mixes the pictures or the tokens of a batch
                self._batch = 1
                return [self._run([picture])[0] for picture in pictures[:count]]
        return list(rows)

    def _agree(self, one: Tensor, other: Tensor) -> bool:
        """Whether log-probabilities [n] differ by rounding: a faint one tells as much as one near 1."""
        rounding = max(AGREE, ROUNDINGS_OF_OTHERS * torch.finfo(self._model.dtype).eps)
        logs = torch.nan_to_num(one - other)  # where both are -inf
        return bool(logs.abs().max() <= rounding and (one.exp() - other.exp()).abs().max() <= AGREE)

    @torch.no_grad()
    def _run(self, pictures: Sequence[Pixels]) -> Tensor:
        """[B, n] log-probabilities of B pictures, float32 on the CPU."""
        return self.log_probabilities(pictures).float().cpu()

    def log_probabilities(self, pictures: Sequence[Pixels]) -> Tensor:
        """[B, n] of B pictures in one forward, float32 or better; in the graph where autograd records."""
        count = len(pictures)
        batch = {
            name: torch.cat([value] * count) if isinstance(value, Tensor) else value
            for name, value in self._inputs.items()
        }
        for name in pictures[0]:
            batch[name] = torch.cat([picture[name] for picture in pictures]).to(self._inputs[name])
        logits = self._logits(batch) if self._at_once else self._logits_behind(batch, count)
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        found, *others = (
            scores.gather(-1, ids.expand(count, -1)[..., None])[..., 0]
            for ids in (self._ids, self._against)
            if ids is not None
        )
        return logsigmoid(found - others[0]) if others else found

    def _logits(self, batch: dict[str, Any]) -> Tensor:
        """[B, n, V] in one forward of prompt and answer."""
        rows = self._prompt - 1 + self._positions.to(self._ids.device)
        pictures, length = batch["input_ids"].shape
        arguments, kept = chosen_logits(self._model, rows, length)
        with wanting(rows, length) if pictures > 1 else nullcontext():  # one alone is what a batch is checked by
            return self._model(**batch, **arguments, **of_whole_forward(self._model, self._prompt)).logits[:, kept]

    def _logits_behind(self, batch: dict[str, Any], count: int) -> Tensor:
        """The same in a forward of the prompt, and one of the answer over its cache."""
        cache = to_forward(self._model, whole_cache(self._model.config))
        watching = PromptWatcher(self._model, self._prompt, self._inputs)
        with watching.watching():
            logits = self._model(**batch, **cache, **last_logits(self._model), use_cache=True).logits[:, -1:]
            if len(self._said):
                with counting_on(watching.last_positions):
                    said = self._said.expand(count, -1)
                    logits = torch.cat([logits, self._model(input_ids=said, **cache, use_cache=True).logits], 1)
        return logits[:, self._positions.to(logits.device)]


def _check(positions: Tensor, tokens: int) -> None:
    if positions.ndim != 1 or len(positions) == 0 or not bool(((positions >= 0) & (positions < tokens)).all()):
        raise InputError(f"positions must name tokens of the answer, 0 to {tokens - 1}")
