"""Chunks as a CUDA graph would hold them: the same work, and no look at a number while it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from dexar_fast import engine
from dexar_fast.sums import LayerSums

Forward = Callable[[], LayerSums]


@contextmanager
def chunks_run_by(run: Callable[[Forward], LayerSums]) -> Iterator[list[int]]:
    """Hands the forward of every chunk to `run`, which returns the sums of its layers; yields the chunks' sizes."""
    sizes: list[int] = []
    chunk, attribution = engine.Pass.chunk, LayerSums.attribution

    def handed(self: engine.Pass, first: int, ids: torch.Tensor, size: int) -> Any:
        sizes.append(size)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(LayerSums, "attribution", lambda sums, length: sums)
            sums = run(lambda: chunk(self, first, ids, size))  # type: ignore[arg-type, return-value]
        return attribution(sums, first + size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.Pass, "chunk", handed)
        yield sizes
