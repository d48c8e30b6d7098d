"""What is remembered of visitors, and for how long."""

import threading

import pytest
from PIL import Image

from dexar_fast.errors import InputError
from dexar_fast.serve import visits
from dexar_fast.serve.uploads import Given
from dexar_fast.serve.visits import Visit, Visits
from dexar_fast.serve.work.asking import Asked, Choices
from dexar_fast.vision.images import Loaded


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Running:
    closed = False
    runs = False

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


def test_a_visit_for_which_something_runs_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "MOST_VISITS", 1)
    known, running = Visits(), Running()
    running.runs = True
    first = known.of("first")
    first.work = running  # type: ignore[assignment]
    known.of("second")
    known.of("third")
    assert known.of("first") is first and not running.closed


def test_the_oldest_pictures_are_forgotten_where_all_take_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "MOST_BYTES", 3 * 10 * 10 * 2 + 6)
    known = Visits()
    for name in ("first", "second", "third"):
        given = Given(Loaded([Image.new("RGB", (10, 10))]), ["uri"], [])
        known.of(name).asked = Asked("model", given, "?", (), Choices())
    known.of("fourth")
    assert len(known) == 3 and known.known("first").asked is None
    assert known.known("second").asked is not None


def test_to_look_for_a_visit_begins_none() -> None:
    known = Visits()
    assert known.known("a") is not known.known("a") and len(known) == 0
    assert known.of("a") is known.known("a")


def test_idle_visits_end_though_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "MINUTE", 0.01)
    clock, ended = Clock(), threading.Event()
    known = Visits(clock)
    known.also = lambda session: ended.set() if session == "a" else None
    known.of("a")
    assert not ended.wait(0.05) and len(known) == 1
    clock.now = visits.IDLE + 1
    assert ended.wait(10) and len(known) == 0


def test_nothing_is_answered_before_the_first_question() -> None:
    with pytest.raises(InputError, match="nothing is answered yet: ask a question first"):
        Visit().answered()
