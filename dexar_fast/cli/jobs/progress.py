"""How far a job is, and how long it will take, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dexar_fast.cli.messages import say

EVERY = 60.0  # seconds between the lines of a log
MINUTE = 60
PERIOD = 600.0  # seconds of the past that the time left is told from


@contextmanager
def progress(done: int, items: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, lines in a log; call what is given for each item more that is finished."""
    if not sys.stderr.isatty():
        yield _Log(done, items).advance
        return
    columns = TextColumn("explaining"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=PERIOD) as bar:
        task = bar.add_task("", total=items, completed=done)
        yield lambda: bar.advance(task)


class _Log:
    def __init__(self, done: int, items: int) -> None:
        self._before, self._done, self._items = done, done, items
        self._start = self._last = time.monotonic()

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._last >= EVERY:
            rate = (self._done - self._before) / (now - self._start)
            left = (self._items - self._done) / rate / MINUTE
            say(f"{self._done} of {self._items} items, {left:.0f} minutes left")
            self._last = now
