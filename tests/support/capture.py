"""Chunks as a CUDA graph would hold them: the same work, and no look at a number while it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dexar_fast.attribution import engine
from dexar_fast.attribution.calls.rows import Answers
from dexar_fast.attribution.sums import LayerSums

Forward = Callable[[], LayerSums]


@contextmanager
def chunks_run_by(run: Callable[[Forward], LayerSums]) -> Iterator[list[int]]:
    """Hands the forward of every chunk to `run`, which returns the sums of its layers; yields the chunks' sizes.

    What was computed is checked behind it, as the sums are fetched.
    """
    sizes: list[int] = []
    chunk, check, attribution = engine.Pass.chunk, engine.Pass._check, LayerSums.attribution

    def handed(self: engine.Pass, answers: Answers, done: int, size: int) -> Any:
        sizes.append(size)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(LayerSums, "attribution", lambda sums, length: sums)
            inner.setattr(engine.Pass, "_check", lambda running: None)
            sums = run(lambda: chunk(self, answers, done, size)[0])
        check(self)
        return [attribution(sums, self._first + size)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.Pass, "chunk", handed)
        yield sizes
