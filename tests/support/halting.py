"""An answer that halts while it is written, for tests of the page."""

import time
from collections.abc import Iterator
from typing import Any


def halting(base: Any, asked: Any, chunk: int) -> Iterator[Any]:
    """Three pieces of an answer, then a long wait."""
    with base.stream(asked.given.pictures, asked.text, chunk_size=1) as pieces:
        for n, piece in enumerate(pieces, 1):
            yield piece, pieces.explanation()
            for _ in range(600 if n == 3 else 0):
                time.sleep(0.05)
