"""Work in a thread of its own: its items, its errors, and its end within a step."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dexar_fast.errors import InputError
from dexar_fast.model.wanted import check_wanted
from dexar_fast.serve.work.thread import Work


def of_items(work: Work) -> list[Any]:
    return [item for item in work if item is not None]


def test_the_items_come_in_order() -> None:
    assert of_items(Work(lambda: iter("abc"), 10)) == ["a", "b", "c"]


def test_an_error_is_raised_where_the_items_are_read() -> None:
    def fails() -> Iterator[str]:
        yield "a"
        raise InputError("no")

    work = Work(fails, 10)
    assert next(work) == "a"
    with pytest.raises(InputError, match="no"):
        of_items(work)
    assert work.join(5)


def test_while_nothing_comes_none_does() -> None:
    go = threading.Event()

    def waits() -> Iterator[str]:
        go.wait(10)
        yield "late"

    work = Work(waits, 10)
    assert next(work) is None
    go.set()
    assert of_items(work) == ["late"]


def test_closed_it_ends_in_the_middle_and_cleans_up() -> None:
    events: list[str] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                time.sleep(0.01)
                yield len(events)
        finally:
            events.append("cleaned")

    work = Work(endless, 10)
    next(work)
    work.close()
    assert work.join(2)
    assert events == ["cleaned"]


def test_a_loop_that_catches_exceptions_ends_too() -> None:
    def stubborn() -> Iterator[int]:
        while True:
            try:
                time.sleep(0.01)
                yield 1
            except Exception:
                pass

    work = Work(stubborn, 10)
    next(work)
    work.close()
    assert work.join(2)


def test_too_long_is_an_input_error_and_ends_the_thread() -> None:
    def slow() -> Iterator[int]:
        while True:
            time.sleep(0.01)
            check_wanted()  # as each layer of a model does
            if False:
                yield 0

    work = Work(slow, 0.1)
    with pytest.raises(InputError, match="more than 0 s and was ended: ask for less"):
        of_items(work)
    assert work.join(2)


def test_too_long_ends_while_items_come_too() -> None:
    def endless() -> Iterator[int]:
        while True:
            time.sleep(0.001)
            yield 1

    work = Work(endless, 0.1)
    with pytest.raises(InputError, match="more than 0 s and was ended"):
        for n, _ in enumerate(work):
            assert n < 10_000
    assert work.join(2)


def test_closing_what_is_over_does_nothing() -> None:
    work = Work(lambda: iter("a"), 10)
    assert of_items(work) == ["a"]
    assert work.join(2)
    work.close()
    with pytest.raises(StopIteration):
        next(work)


def test_many_ends_at_any_moment_leave_no_thread() -> None:
    def steps() -> Iterator[int]:
        yield from range(200)

    works = []
    for n in range(40):
        work = Work(steps, 10)
        time.sleep(0.0002 * n)
        work.close()
        works.append(work)
    assert all(work.join(5) for work in works)
