"""Asks for the probabilities of an answer under many pictures: several at once, and of none twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError, NumericalError
from dexar_fast.methods.eagle.black_box.record import Record, key_of

BlackBox = Callable[[Image.Image, str, list[str]], Sequence[float]]  # picture, prompt, T tokens -> T probabilities


class Asking:
    """A prompt and its answer, for any picture.

    Raises:
        InputError, FileError: as `explain_black_box` says of the record and the workers.
    """

    def __init__(
        self, probabilities: BlackBox, prompt: str, tokens: list[str], record: Any = None, workers: int = 1
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise InputError(f"workers is a whole number of at least 1, not {workers!r}")
        if not isinstance(prompt, str):
            raise InputError(f"the prompt must be a text, not a {type(prompt).__name__}")
        self._probabilities = probabilities
        self._prompt = prompt
        self._tokens = tokens
        self._record = None if record is None else Record(record)
        self._workers = workers

    def __call__(self, pictures: Sequence[Image.Image]) -> Tensor:
        """[B, T] float32."""
        if self._workers == 1:  # in the caller's own thread
            found = list(map(self._remembered, pictures))
        else:
            with ThreadPoolExecutor(self._workers) as pool:
                found = list(pool.map(self._remembered, pictures))
        return torch.tensor(found, dtype=torch.float32)

    def _remembered(self, picture: Image.Image) -> list[float]:
        if self._record is None:
            return self._asked(picture)
        key = key_of(picture, [name_of(self._probabilities), self._prompt, *self._tokens])
        known = self._record.get(key)
        if known is None:
            known = self._asked(picture)
            self._record.add(key, known)
        return known

    def _asked(self, picture: Image.Image) -> list[float]:
        found = _numbers(self._probabilities(picture, self._prompt, list(self._tokens)))
        if len(found) != len(self._tokens):
            raise InputError(
                f"{len(found)} probabilities were returned for {len(self._tokens)} tokens: one each is due"
            )
        if not all(0 <= value <= 1 for value in found):
            raise NumericalError(f"what was returned are no probabilities: {found}")
        return found


def _numbers(found: Any) -> list[float]:
    try:
        return [float(value) for value in found]
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"the function must return a list of probabilities, not {found!r:.80}") from None


def name_of(probabilities: Any) -> str:
    """What tells the model behind a function from others; empty where the function does not say."""
    return str(getattr(probabilities, "model", ""))
