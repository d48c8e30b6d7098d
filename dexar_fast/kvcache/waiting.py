"""Who holds slots of a pool, and the wait for those that other threads will free.

No lock is held here: the finalizer of a dropped stream may free slots between any two lines of any thread. Who waits
looks again every POLL seconds.
"""

from __future__ import annotations

import math
import numbers
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from time import monotonic, sleep
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from dexar_fast._C import BudgetExhausted
from dexar_fast.errors import InputError
from dexar_fast.kvcache.owners import owner

WAIT = 10.0  # seconds
POLL = 0.05

Lent = Callable[[], AbstractContextManager[Any]]  # inside its block others may use what the caller holds
Taken = TypeVar("Taken")


class Holders:
    """The sequences that hold some of the slots of a pool, each with the thread that will free it.

    Args:
        slots: of the whole pool.
        seconds: the longest wait.
    """

    def __init__(self, slots: int, seconds: Any) -> None:
        if not isinstance(seconds, numbers.Real) or not 0 <= float(seconds) < math.inf:
            raise InputError(f"wait must be a number of seconds from 0, not {seconds!r}")
        self._slots = slots
        self._seconds = float(seconds)
        self._threads: WeakKeyDictionary[Any, threading.Thread] = WeakKeyDictionary()
        self._line: list[threading.Thread] = []  # of those who wait

    def add(self, rows: Any) -> None:
        """Notes whose these rows are; they are true while they hold slots."""
        self._threads[rows] = owner()

    def patiently(self, take: Callable[[], Taken], slots: int, lent: Lent = nullcontext) -> Taken:
        """What `take` returns; it is called again while it raises BudgetExhausted and another thread may free slots.

        Args:
            slots: how many it takes at least.
        """
        try:
            return take()
        except BudgetExhausted:
            if slots > self._slots:
                raise
        with self._standing_in_line():
            return self._again(take, lent)

    def _again(self, take: Callable[[], Taken], lent: Lent) -> Taken:
        end = monotonic() + self._seconds
        while monotonic() < end and self._may_be_freed():
            with lent():
                sleep(POLL)
            with suppress(BudgetExhausted):
                return take()
        return take()

    @contextmanager
    def _standing_in_line(self) -> Iterator[None]:
        self._line.append(owner())
        try:
            yield
        finally:
            self._line.remove(owner())

    def _may_be_freed(self) -> bool:
        """Whether a thread holds slots that runs and does not stand before this one: of two, the first can go on."""
        stuck = self._line[: self._line.index(owner()) + 1]
        holding = [rows for reference in self._threads.keyrefs() if (rows := reference())]
        threads = [self._threads[rows] for rows in holding]
        return any(thread.is_alive() and thread not in stuck for thread in threads)
