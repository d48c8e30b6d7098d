"""What is remembered of visitors, and for how long."""

import pytest

from dexar_fast.errors import InputError
from dexar_fast.serve import visits
from dexar_fast.serve.visits import Visit, Visits


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Running:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_visit_is_found_again_until_it_ends() -> None:
    known = Visits()
    visit = known.of("a")
    assert known.of("a") is visit and known.of("b") is not visit
    known.end("a")
    assert known.of("a") is not visit
    known.end("never seen")


def test_the_end_of_a_visit_ends_its_work() -> None:
    known = Visits()
    running = Running()
    known.of("a").work = running  # type: ignore[assignment]
    known.end("a")
    assert running.closed


def test_idle_visits_and_too_many_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "MOST_VISITS", 3)
    clock = Clock()
    known = Visits(clock)
    first, running = known.of("first"), Running()
    first.work = running  # type: ignore[assignment]
    clock.now = visits.IDLE + 1
    known.of("second")
    assert len(known) == 1 and running.closed
    for name in ("third", "fourth"):
        known.of(name)
    second = known.of("second")  # seen again: the third is now the oldest
    known.of("fifth")
    assert len(known) == 3 and known.of("second") is second


def test_nothing_is_answered_before_the_first_question() -> None:
    with pytest.raises(InputError, match="nothing is answered yet: ask a question first"):
        Visit().answered()
