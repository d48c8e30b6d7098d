"""A line on the terminal while something takes its time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

EVERY = 1.0  # seconds


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says on stderr for the length of the block what takes time, and for how long; erased behind it.

    Says nothing where stderr is no terminal.
    """
    if not sys.stderr.isatty():
        yield
        return
    ended = Event()
    teller = Thread(target=_tell, args=(what, ended), daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def _tell(what: str, ended: Event) -> None:
    start, line = time.monotonic(), ""
    while not ended.is_set():
        line = f"{what}, {time.monotonic() - start:.0f} s"
        _write(f"\r{line}")
        ended.wait(EVERY)
    _write(f"\r{' ' * len(line)}\r")


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
