"""Loading libraries without looking for garbage."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2


@contextmanager
def uncollected() -> Iterator[None]:
    """What loads in the block stays: to look for garbage in it, then and at the end, takes a fifth of a short run."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # or the next collection would look through all of it
        gc.enable()
        atexit.register(_end_silently)


def _end_silently() -> None:
    """Triton's bindings complain of objects that were never freed, once everything else is over."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)
