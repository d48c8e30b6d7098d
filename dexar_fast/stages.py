"""Named stages of the work, for whoever records them: `with stage("prefill"): ...` costs nothing while nobody does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

Annotate = Callable[[str], AbstractContextManager[object]]

_nothing = nullcontext()
_recorder: ContextVar[Recorder | None] = ContextVar("dexar_fast_stages", default=None)


def stage(name: str) -> AbstractContextManager[object]:
    """Names the work inside the block, except that of inner stages."""
    recorder = _recorder.get()
    return _nothing if recorder is None else recorder.stage(name)


@dataclass
class Recorder:
    """Marks the clock at every beginning and end of a stage.

    Attributes:
        mark: takes the time, in seconds or as anything that `profile` can turn into seconds afterwards.
        annotate: a range of an outer profiler (NVTX, torch.profiler) around each stage.
        marks: (the stage of the work since the last mark, the time); "" is work outside every stage.
        open: the stages that have begun and not ended, the innermost last.
    """

    mark: Callable[[], object]
    annotate: Annotate | None = None
    marks: list[tuple[str, object]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Records this thread's stages inside the block."""
        token = _recorder.set(self)
        self._mark()
        try:
            yield self
        finally:
            self._mark()
            _recorder.reset(token)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._mark()
        self.open.append(name)
        try:
            with self.annotate(name) if self.annotate else _nothing:
                yield
        finally:
            self._mark()
            self.open.pop()

    def _mark(self) -> None:
        self.marks.append((self.open[-1] if self.open else "", self.mark()))


class Laps:
    """Seconds of each part of an explanation, its work on the GPU included.

    Args:
        processor: seconds that the processor took before.
    """

    def __init__(self, processor: float | None) -> None:
        self.seconds: dict[str, float] = {} if processor is None else {"processor": processor}
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Adds the time since the last lap to a part."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0) + now - self._last
        self._last = now
