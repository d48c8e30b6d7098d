"""Which thread frees what a thread holds: itself, or the reader of the stream that it writes."""

from __future__ import annotations

import threading
from contextvars import ContextVar

_reader: ContextVar[threading.Thread] = ContextVar("reader")


def read_by(reader: threading.Thread) -> None:
    """Says that this thread goes on only as far as a reader does."""
    _reader.set(reader)


def owner() -> threading.Thread:
    return _reader.get(threading.current_thread())
