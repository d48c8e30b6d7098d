"""Work in a thread of its own, which ends within a layer of the model once nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from dexar_fast.errors import InputError
from dexar_fast.model.wanted import Abandoned, check_wanted, while_wanted

PULSE = 0.2  # seconds between looks at whether somebody still waits


class Work(Iterator[Any]):
    """The items that `make` gives, as they come, and None every 0.2 s while none does.

    Closed, it ends at its next item, layer or gradient, and the model is given back as it was. What `make` raises is
    raised here.

    Args:
        seconds: after so many it ends with InputError.
    """

    def __init__(self, make: Callable[[], Iterable[Any]], seconds: float) -> None:
        self._make = make
        self._items: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._wanted = True
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._thread = threading.Thread(target=self._run, name="dexar_fast.serve.work", daemon=True)
        self._thread.start()

    def __next__(self) -> Any:
        if self.runs and time.monotonic() > self._until:
            self.close()
            raise InputError(
                f"it took more than {self._seconds:.0f} s and was ended: ask for less, or a quicker method"
            )
        try:
            kind, value = self._items.get(timeout=PULSE)
        except Empty:
            return None
        if kind == "item":
            return value
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """Ends the work; does not wait for it."""
        self._wanted = False
        self._items.put(("end", None))

    @property
    def runs(self) -> bool:
        """Whether its thread has not ended yet."""
        return self._thread.is_alive()

    def join(self, seconds: float) -> bool:
        """Waits until the thread has ended; whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with suppress(Abandoned), while_wanted(lambda: self._wanted):
            try:
                for item in self._make():
                    check_wanted()
                    self._items.put(("item", item))
                self._items.put(("end", None))
            except Exception as error:
                self._items.put(("error", error))
