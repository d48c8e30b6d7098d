"""Whether somebody still waits for what this thread computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Abandoned(BaseException):
    """Nobody waits for the answer any more. Not an Exception, so that no error handler catches it."""


_wanted: ContextVar[Callable[[], bool] | None] = ContextVar("dexar_fast_wanted", default=None)


@contextmanager
def while_wanted(wanted: Callable[[], bool]) -> Iterator[None]:
    """Inside the block this thread's work ends with `Abandoned`, at its next layer or gradient, once `wanted` is false.

    It ends where the model's own code may raise, too: unlike an exception that Python raises in a thread from outside,
    none comes while a lock is handed over or a model is put back as it was. A model whose attention is its own code
    (`kinds.attends_by_hand`) asks when it is taken, and at gradients, alone.
    """
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def is_watched() -> bool:
    """Whether this thread's work may be ended so."""
    return _wanted.get() is not None


def check_wanted() -> None:
    """Raises Abandoned if nobody waits any more."""
    wanted = _wanted.get()
    if wanted is not None and not wanted():
        raise Abandoned
