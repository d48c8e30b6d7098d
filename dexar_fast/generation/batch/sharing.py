"""Given answers whose prompts begin alike, pictures included: a pool keeps that part, and the rest runs over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from transformers import Cache

from dexar_fast.errors import CacheError, OutOfMemoryError, reason
from dexar_fast.generation.runner import Runner
from dexar_fast.model.lending.session import Loan


class Sharing:
    """Which requests share the beginning of their prompts with another.

    Args:
        runners: those that may run over a pool.
    """

    def __init__(self, runners: Iterable[Runner]) -> None:
        beginnings = {runner: _beginning(runner) for runner in runners}
        counts = Counter(beginnings.values())
        self._beginnings = {runner: own for runner, own in beginnings.items() if own and counts[own] > 1}
        self._ran: set[bytes] = set()

    def of(self, runner: Runner) -> bytes | None:
        """What names the shared beginning of a prompt; None if there is none."""
        return self._beginnings.get(runner)

    def is_first(self, runner: Runner) -> bool:
        """Whether a request is the first with its beginning: it runs by itself, and leaves that in the pool."""
        own = self._beginnings.get(runner)
        if own is None or own in self._ran:
            return False
        self._ran.add(own)
        return True

    def left(self, runner: Runner) -> int:
        """How many tokens of prompt and answer run behind what is shared."""
        length = len(runner.request.ids) + runner.longest
        return length if self.of(runner) is None else length - _shared(runner)


def opened(held: ExitStack, runner: Runner, loan: Loan) -> Cache:
    """A cache over the pool with the beginning of a prompt; the stack holds it, and names what ran at its end.

    Raises:
        OutOfMemoryError: the pool no longer holds that.
    """
    cache: Cache = held.enter_context(runner.prefix(loan)).begin(runner.request.inputs)[0]
    if cache.get_seq_length() < _shared(runner):
        raise OutOfMemoryError("the pool has no room for the pictures that several prompts share")
    return cache


@contextmanager
def room_in_pool() -> Iterator[None]:
    """Inside the block a pool without room raises OutOfMemoryError: fewer requests at once may fit."""
    try:
        yield
    except CacheError as error:
        raise OutOfMemoryError(reason(error)) from error


def _beginning(runner: Runner) -> bytes:
    """What names a prompt up to its last picture; nothing where the inputs hold what has no name."""
    from dexar_fast.kvcache.naming import position_keys

    request = runner.request
    try:
        names = position_keys(runner.setup.model.config, request.inputs, request.earlier)
    except Exception:  # of one request: it is raised again when that runs over the pool
        return b""
    return names[: _shared(runner)].tobytes()


def _shared(runner: Runner) -> int:
    """The tokens of the prompt up to its last picture's last."""
    return int(runner.placed.positions[-1]) + 1
