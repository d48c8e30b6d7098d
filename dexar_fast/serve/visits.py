"""What the server remembers of each visitor, in memory, for as long as the visit lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.serve.work.asking import Asked
from dexar_fast.serve.work.thread import Work

IDLE = 30 * 60.0  # seconds until a visit is over that nobody ended
MINUTE = 60.0
MOST_VISITS = 200
MOST_BYTES = 2**30  # of all visits' pictures


@dataclass(frozen=True)
class Shown:
    """The values of the page's components; None leaves one as it is, or it is empty yet."""

    frame: Any = None
    said: Any = None
    turns: Any = None
    answer: Any = None
    brush: Any = None
    changes: Any = None


@dataclass
class Visit:
    """One open page.

    Attributes:
        asked: the last question that was answered. explanations: of its answer; several of a comparison.
        titles: of these. answer: the model's own.
        work: what runs for it now. shown: what its page shows.
    """

    asked: Asked | None = None
    explanations: Sequence[Explanation] = ()
    titles: Sequence[str] = ()
    answer: str = ""
    work: Work | None = None
    shown: Shown = Shown()
    seen: float = 0.0

    def answered(self) -> tuple[Asked, Explanation]:
        """The last question and the explanation of its answer. Raises InputError where there is none."""
        if self.asked is None or not self.explanations:
            raise InputError("nothing is answered yet: ask a question first")
        return self.asked, self.explanations[0]

    def show(self, new: Shown) -> Shown:
        """All that the page shows, with what is new."""
        self.shown = replace(self.shown, **{name: value for name, value in vars(new).items() if value is not None})
        said = {**(self.shown.said or {}), "answered": bool(self.explanations)}
        return replace(self.shown, said=said)

    @property
    def runs(self) -> bool:
        """Whether something runs for it now."""
        return self.work is not None and self.work.runs

    @property
    def bytes(self) -> int:
        """That its pictures take: as they came, and decoded."""
        if self.asked is None:
            return 0
        given = self.asked.given
        return sum(map(len, given.uris)) + sum(3 * image.width * image.height for image in given.pictures)

    def close(self) -> None:
        """Ends what runs."""
        if self.work is not None:
            self.work.close()


class Visits:
    """The visits by the session that Gradio names.

    Those that are idle too long, or too many, or whose pictures take too much, are forgotten, the oldest first; none
    for which something runs.

    Attributes:
        also: what else is to be done when a session is forgotten.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.also: Callable[[str], object] = lambda session: None
        self._clock = clock
        self._timer: threading.Timer | None = None
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._visits)

    def of(self, session: str) -> Visit:
        """The visit, which begins here if it is new."""
        with self._lock:
            visit = self._visits.pop(session, None) or Visit()
            self._visits[session] = visit  # the last one seen stands last
            visit.seen = self._clock()
        self.sweep()
        return visit

    def known(self, session: str) -> Visit:
        """The visit; one that is not kept if there is none yet."""
        return self._visits.get(session) or Visit()

    def sweep(self) -> None:
        """Forgets the visits that are over; and again each minute, as long as there are any."""
        with self._lock:
            over = {session: self._visits.pop(session) for session in self._over(self._clock())}
        for session, visit in over.items():
            visit.close()
            self.also(session)
        with self._lock:
            if self._visits and self._timer is None:
                self._timer = threading.Timer(MINUTE, self._again)
                self._timer.daemon = True
                self._timer.start()

    def _again(self) -> None:
        self._timer = None
        self.sweep()

    def _over(self, now: float) -> list[str]:
        over, taken = [], 0
        for count, (session, visit) in enumerate(reversed(self._visits.items())):  # the newest stays in any case
            taken += visit.bytes
            full = count > 0 and (count >= MOST_VISITS or taken > MOST_BYTES)
            if (full or visit.seen < now - IDLE) and not visit.runs:
                over.append(session)
        return over

    def end(self, session: str) -> None:
        """Forgets a visit and ends what runs for it."""
        with self._lock:
            visit = self._visits.pop(session, None)
        if visit is not None:
            visit.close()
        self.also(session)
