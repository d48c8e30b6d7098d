"""The probabilities of an answer's tokens under pictures of which parts are hidden, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.model.cache import of_whole_forward, to_forward, whole_cache
from dexar_fast.model.decoder import Decoder, PromptWatcher
from dexar_fast.model.logits import chosen_logits, last_logits
from dexar_fast.model.memory import default_batch, halving
from dexar_fast.model.prefill import takes_answer, with_answer
from dexar_fast.model.teacher_forcing import counting_on

AGREE = 1e-3  # by how much a probability may differ between a batch and a picture alone

Pixels = Mapping[str, Tensor]
Make = Callable[[range], Sequence[Pixels]]


class MaskedForwards:
    """One prompt and its answer, for pictures in the place of its own.

    Args:
        inputs: of the prompt of P tokens, batch 1, on the model's device.
        answer: [T] ids, on the CPU.
        decoder: the model's. visual: [N] positions of the prompt's image, on the CPU.
        positions: [n] which tokens of the answer count. ids: [n] whose probabilities; None takes those of the answer.
        batch: pictures in one forward; None takes as many as fit in 256 MiB.
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
    ) -> None:
        self._model = model
        self._at_once = takes_answer(inputs, decoder, visual)
        self._positions = torch.arange(len(answer)) if positions is None else positions
        _check(self._positions, len(answer))
        device = inputs["input_ids"].device
        self._ids = (answer[self._positions] if ids is None else ids).to(device)
        self._said = answer[:-1].to(device)  # what the answer's tokens read of it
        self._inputs = with_answer(inputs, self._said) if self._at_once else dict(inputs)
        self._prompt = inputs["input_ids"].shape[1]
        length = self._prompt + len(self._said)
        self._batch = batch or default_batch(model, length, len(self._positions), decoder.lens.rows)
        self._checked = False

    def __call__(self, count: int, make: Make) -> Tensor:
        """[count, n] float32 on the CPU: the probabilities for each picture; softmax in float32 or better.

        Args:
            make: the pictures of some numbers, 0 to count - 1. Another thread makes a batch while one runs.
        Raises:
            OutOfMemoryError: not even one picture fits.
        """
        found: list[Tensor] = []
        with ThreadPoolExecutor(1, "dexar_fast.masked") as ahead:
            coming = ahead.submit(make, self._next(0, count))
            while len(found) < count:
                pictures = coming.result()
                coming = ahead.submit(make, self._next(len(found) + len(pictures), count))
                rows, fitted = halving(partial(self._some, pictures), self._batch, len(pictures))
                self._batch = min(self._batch, fitted)
                found += rows
                if len(rows) < len(pictures):  # memory ran out: those left are made again
                    coming = ahead.submit(make, self._next(len(found), count))
        return torch.stack(found) if found else torch.empty(0, len(self._ids))

    def _next(self, first: int, count: int) -> range:
        """The pictures of the next batch."""
        return range(first, min(first + self._batch, count))

    def _some(self, pictures: Sequence[Pixels], count: int) -> list[Tensor]:
        rows = self._run(pictures[:count])
        if count > 1 and not self._checked:
            self._checked = True
            alone = self._run(pictures[count - 1 : count])
            if (rows[-1] - alone[0]).abs().max() > AGREE:  # the model mixes the pictures of a batch
                self._batch = 1
                return [self._run([picture])[0] for picture in pictures[:count]]
        return list(rows)

    @torch.no_grad()
    def _run(self, pictures: Sequence[Pixels]) -> Tensor:
        """[B, n] of B pictures."""
        count = len(pictures)
        batch = {
            name: torch.cat([value] * count) if isinstance(value, Tensor) else value
            for name, value in self._inputs.items()
        }
        for name in pictures[0]:
            batch[name] = torch.cat([picture[name] for picture in pictures]).to(self._inputs[name])
        logits = self._logits(batch) if self._at_once else self._logits_behind(batch, count)
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        return scores.gather(-1, self._ids.expand(count, -1)[..., None])[..., 0].exp().float().cpu()

    def _logits(self, batch: dict[str, Any]) -> Tensor:
        """[B, n, V] in one forward of prompt and answer."""
        rows = self._prompt - 1 + self._positions.to(self._ids.device)
        arguments, kept = chosen_logits(self._model, rows, batch["input_ids"].shape[1])
        cache = of_whole_forward(self._model, self._prompt)
        return self._model(**batch, **arguments, **cache).logits[:, kept]

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
