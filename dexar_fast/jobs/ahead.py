"""Reading ahead: what comes next is read while the model works."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Asked = TypeVar("Asked")
Found = TypeVar("Found")


def ahead(read: Callable[[Asked], Found], several: Iterable[Asked]) -> Iterator[tuple[Asked, Found]]:
    """Each with what `read` makes of it, in a thread that is one of them ahead."""
    waiting: list[tuple[Asked, Future[Found]]] = []
    with ThreadPoolExecutor(1) as beside:
        for each in several:
            waiting.append((each, beside.submit(read, each)))
            if len(waiting) > 1:
                asked, found = waiting.pop(0)
                yield asked, found.result()
        yield from ((asked, found.result()) for asked, found in waiting)
