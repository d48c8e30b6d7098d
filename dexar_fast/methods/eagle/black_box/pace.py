"""The pace of requests to a server, which all threads share."""

from __future__ import annotations

import time
from threading import Lock


class Pace:
    """At most `rate` requests a second; None is as many as come."""

    def __init__(self, rate: float | None) -> None:
        self._apart = 0.0 if rate is None else 1 / rate
        self._next = 0.0
        self._lock = Lock()

    def wait(self) -> None:
        """Until the next request may go."""
        with self._lock:
            start = max(self._next, time.monotonic())
            self._next = start + self._apart
        time.sleep(max(0.0, start - time.monotonic()))

    def hold(self, seconds: float) -> None:
        """No request goes for so long: the server is busy."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)
