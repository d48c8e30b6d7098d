"""An answer explained while it is written.

generate() runs in a thread of its own and hands each token to a streamer. Every C tokens that streamer, still in the
middle of generate(), runs the pass for them over the live cache (dexar_fast.rewind), and waits until the piece is
wanted. While it waits the model is as it was found, and free for others.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import torch

from dexar_fast import engine
from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.generation import Prompt
from dexar_fast.record import Record
from dexar_fast.rewind import RewoundCache
from dexar_fast.session import Abandoned
from dexar_fast.sums import Attribution, joined


@dataclass(frozen=True, eq=False, repr=False)
class Piece(Explanation):
    """The next C tokens of an answer and their explanation: every field of an Explanation, of these tokens alone.

    Attributes:
        first: which token of the answer its first is.
    """

    first: int = 0

    @property
    def text(self) -> str:
        """What it adds to the answer. A character whose bytes are spread over pieces is in the last of them."""
        return "".join(self.tokens)


class Stream(Iterator[Piece]):
    """The pieces of an answer as it is written; what `Explainer.stream` returns.

    Nothing runs before the first piece is asked for, and at most one piece more than was asked for. `close()`, the end
    of a `with` block, an exception, or the stream as garbage end the generation at its next token; what was finished
    stays. An exception in the generation or the pass is raised by the iteration.
    """

    def __init__(self, work: Callable[[Channel], None]) -> None:
        self._work = work
        self._channel = Channel()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __next__(self) -> Piece:
        if self._channel.closed:
            raise StopIteration
        try:
            self._start()
            item = self._channel.next()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if isinstance(item, Piece):
            return item
        self.close()
        raise StopIteration if item is None else item

    def close(self) -> None:
        """Ends the generation, and waits until the model is free and as it was."""
        self._channel.close()
        if self._thread is not None:
            self._thread.join()

    def explanation(self) -> Explanation:
        """All that is explained so far; after the last piece it is that of the whole answer.

        Raises:
            InputError: nothing is explained yet.
        """
        if self._channel.record is None:
            raise InputError("no token is explained yet: ask for the explanation once a piece has come")
        return self._channel.record.explanation()

    def _start(self) -> None:
        if self._thread is None:
            stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None
            self._thread = threading.Thread(
                target=_run, args=(self._work, self._channel, stream), name="dexar_fast.stream", daemon=True
            )
            weakref.finalize(self, _abandon, self._channel, self._thread)
            self._thread.start()


class Channel:
    """Between the thread that writes the answer and the one that reads it: a piece for each ticket."""

    def __init__(self) -> None:
        self.record: Record | None = None
        self.closed = False
        # These queues, unlike others, may be put to from a finalizer, wherever it interrupts their other users.
        self._tickets: SimpleQueue[bool] = SimpleQueue()
        self._items: SimpleQueue[Piece | BaseException | None] = SimpleQueue()

    def next(self) -> Piece | BaseException | None:
        """The next piece; or how the answer ended: None if well."""
        self._tickets.put(True)
        return self._items.get()

    def close(self) -> None:
        self.closed = True
        self._tickets.put(False)

    def check(self) -> None:
        """Raises Abandoned if nobody reads any more."""
        if self.closed:
            raise Abandoned

    def hand(self, piece: Piece) -> None:
        """Waits until the piece is asked for. Raises Abandoned."""
        self._tickets.get()
        self.check()
        self._items.put(piece)

    def end(self, error: BaseException | None) -> None:
        self._items.put(error)


def _run(work: Callable[[Channel], None], channel: Channel, stream: Any) -> None:
    """The thread. Its current GPU and stream are those of the thread that reads."""
    end: BaseException | None = None
    try:
        with torch.cuda.stream(stream):
            work(channel)
    except Abandoned:
        pass
    except BaseException as error:
        end = error
    channel.end(end)


def _abandon(channel: Channel, thread: threading.Thread) -> None:
    channel.close()
    if thread is not threading.current_thread():  # which collects garbage, too
        thread.join()


@dataclass
class Job:
    """Explaining the tokens of one answer, of which `record` holds the first ones."""

    model: Any
    plan: engine.Plan
    chunk: int  # tokens at once
    device: torch.device  # of the ids
    record: Record

    def explain(self, prompt: Prompt, ids: list[int], take: Callable[[Attribution], Any]) -> None:
        """ids: [1 + C] the last token that is not to be explained, and those behind it that are."""
        first = self.plan.prompt - 1 + len(self.record)
        tensor = torch.tensor(ids, device=self.device)
        self.chunk = engine.explain(self.model, prompt, self.plan, first, tensor, self.chunk, take)


class Follower:
    """Explains an answer while generate() writes it, in pieces of `size` tokens.

    Args:
        start: makes the job once the prompt has run. last: the id of the prompt's last token.
        hand: takes each piece. check: called at each token, to stop by an exception.
    """

    def __init__(
        self,
        start: Callable[[Prompt], Job],
        last: int,
        size: int,
        hand: Callable[[Piece], None],
        check: Callable[[], None],
    ) -> None:
        self._start = start
        self._size = size
        self._hand = hand
        self._check = check
        self._job: Job | None = None
        self._waiting = [last]  # the last token explained, and those to come

    def __call__(self, token: int, prompt: Prompt) -> None:
        """The next token, which has not run yet; those before it stand in the cache."""
        self._check()
        self._waiting.append(token)
        if len(self._waiting) <= self._size:
            return
        job = self._started(prompt)
        if prompt.cache.get_seq_length() < job.plan.prompt + len(job.record) + len(self._waiting) - 2:
            return  # generate() keeps its keys elsewhere: they are made once more at the end
        with RewoundCache(prompt.cache) as cache:
            piece = self._explain(job, replace(prompt, cache=cache), self._waiting)
        self._hand(piece)

    def finish(self, answer: list[int], prompt: Prompt) -> Record:
        """Explains what is left of the answer when generate() is done with the cache."""
        job = self._started(prompt)
        left = self._waiting[:1] + answer[len(job.record) :]
        while len(left) > 1:
            self._check()
            piece = self._explain(job, prompt, left[: self._size + 1])
            left = left[self._size :]
            self._hand(piece)
        return job.record

    def _started(self, prompt: Prompt) -> Job:
        self._job = self._job or self._start(prompt)
        return self._job

    def _explain(self, job: Job, prompt: Prompt, ids: list[int]) -> Piece:
        sums: list[Attribution] = []
        first = len(job.record)
        job.explain(prompt, ids, sums.append)
        self._waiting = ids[-1:]
        chunk = job.record.add(torch.tensor(ids[1:]), joined(sums))
        return Piece(**job.record.fields(chunk), first=first)
