"""Loading libraries without looking for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """What loads in the block stays: to look for garbage in it takes a tenth of the program's time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # or the next collection would look through all of it
        gc.enable()
