"""What the page takes from a visitor, and how often."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dexar_fast.errors import InputError

MINUTE = 60.0
MOST_CLIENTS = 10_000  # whose requests are counted at a time


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for.

    Attributes:
        pictures: in a question; frames of a video count.
        file_bytes: of a picture's file. pixels: of a picture, width x height.
        letters: of a question, and of an edited answer.
        tokens: of an answer. seconds: that an explanation may take.
        a_minute: requests of a client that use the model.
    """

    pictures: int = 8
    file_bytes: int = 8 * 2**20
    pixels: int = 32 * 2**20
    letters: int = 4000
    tokens: int = 128
    seconds: float = 120.0
    a_minute: int = 30

    @property
    def body_bytes(self) -> int:
        """Of a whole request: the pictures in base64, and room for the words."""
        return self.pictures * (self.file_bytes * 4 // 3) + 2**20


def checked_text(name: str, text: object, most: int) -> str:
    """The text, without white space around it. Raises InputError where it is none, empty or too long."""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"the {name} is empty: write one")
    if len(text) > most:
        raise InputError(f"the {name} has {len(text):,} letters: at most {most:,} are taken")
    return text.strip()


class Rate:
    """How often each client has asked within the last minute."""

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = a_minute
        self._clock = clock
        self._asked: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def count(self, client: str) -> None:
        """Counts a request. Raises InputError where the client has asked too often."""
        with self._lock:
            now = self._clock()
            times = self._recent(client, now)
            if len(times) >= self._most:
                wait = times[0] + MINUTE - now
                raise InputError(f"{self._most} requests a minute are taken: wait {wait:.0f} s, then ask again")
            times.append(now)

    def _recent(self, client: str, now: float) -> deque[float]:
        if client not in self._asked and len(self._asked) >= MOST_CLIENTS:
            self._asked = {name: times for name, times in self._asked.items() if times[-1] > now - MINUTE}
        times = self._asked.setdefault(client, deque())
        while times and times[0] <= now - MINUTE:
            times.popleft()
        return times
