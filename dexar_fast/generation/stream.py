"""The pieces of an answer, handed from the thread that writes it to the one that reads.

generate() runs in a thread of its own and hands each token to a streamer. Every C tokens that streamer, still in the
middle of generate(), runs the pass for them over the live cache (`scheduler`), and waits until the piece is wanted.
While it waits the model is as it was found, and free for others.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Self

import torch

from dexar_fast.backends.cpu import rest_threads
from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.generation.scheduler import Record
from dexar_fast.kvcache.owners import read_by
from dexar_fast.model.wanted import Abandoned


@dataclass(frozen=True, eq=False, repr=False)
class Piece(Explanation):
    """The next C tokens of an answer and their explanation: every field of an Explanation, of these tokens alone.

    `text` is what it adds to the answer. A character whose bytes are spread over pieces is in the last of them.

    Attributes:
        first: the number of its first token in the answer, from 0.
    """

    first: int = 0

    @classmethod
    def of(cls, record: Record, chunks: list[Any]) -> Self:
        """The piece of the last chunks that a record took."""
        fields = record.fields(chunks)
        return cls(**fields, first=len(record) - len(fields["token_ids"]))


class Stream(Iterator[Piece], AsyncIterator[Piece]):
    """The pieces of an answer as it is written; what `Explainer.stream` returns. Read it with `for` or `async for`.

    Nothing runs before the first piece is asked for, and at most one piece more than was asked for. `close()`, the end
    of a `with` block, an exception, or dropping the stream ends the generation at its next token; what was finished
    stays. The iteration raises what the generation or the pass raises.
    """

    def __init__(self, work: Callable[[Channel], None], blocks: Callable[[], bool]) -> None:
        self._work = work
        self._blocks = blocks
        self._channel = Channel()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __next__(self) -> Piece:
        if not self._begin():
            raise StopIteration
        try:
            item = self._channel.next()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if (piece := self._taken(item)) is None:
            raise StopIteration
        return piece

    async def __anext__(self) -> Piece:
        """Waits in a thread of asyncio's, so that the event loop goes on; a task that is cancelled ends the stream."""
        if not self._begin():
            raise StopAsyncIteration
        try:
            item = await asyncio.to_thread(self._channel.next)
        except BaseException:
            await asyncio.to_thread(self.close)
            raise
        if (piece := self._taken(item)) is None:
            raise StopAsyncIteration
        return piece

    def _begin(self) -> bool:
        """Whether a piece can be waited for; starts the work. Raises InputError."""
        if self._channel.closed:
            return False
        if self._process != os.getpid():
            raise InputError("the stream belongs to the process from which this one was forked: read it there")
        if self._blocks():
            raise InputError(
                "this thread is in the middle of another explanation by the same model, for which the stream would "
                "wait: read it after that, or in another thread"
            )
        try:
            self._start()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        rest_threads()
        return True

    def _taken(self, item: Piece | BaseException | None) -> Piece | None:
        """The piece; None at the end of the answer. Raises what ended it."""
        if isinstance(item, Piece):
            return item
        self.close()
        if item is not None:
            raise item
        return None

    def close(self) -> None:
        """Ends the generation, and waits until the model is free and as it was (its own callbacks do not wait)."""
        _end(self._channel, self._thread)

    def explanation(self) -> Explanation:
        """All that is explained so far; after the last piece it is that of the whole answer.

        Raises:
            InputError: nothing is explained yet.
        """
        if self._channel.record is None:
            raise InputError("no token is explained yet: ask for the explanation once a piece has come")
        return self._channel.record.explanation()

    def then(self, finish: Callable[[Explanation], None]) -> Stream:
        """The same stream, which is not begun; `finish` takes the explanation of the whole answer at its end."""
        work = self._work

        def more(channel: Channel) -> None:
            work(channel)
            assert channel.record is not None  # an answer has tokens
            finish(channel.record.explanation())

        self._work = more
        return self

    def _start(self) -> None:
        if self._thread is None:
            stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None
            self._thread = threading.Thread(
                target=_run,
                args=(self._work, self._channel, stream, threading.current_thread()),
                name="dexar_fast.generation.stream",
                daemon=True,
            )
            weakref.finalize(self, _end, self._channel, self._thread)
            self._thread.start()


class Channel:
    """Between the thread that writes the answer and the one that reads it: a piece for each ticket."""

    def __init__(self) -> None:
        self.record: Record | None = None
        self.closed = False
        # Unlike other queues, a finalizer may put to these, wherever it interrupts their other users.
        self._tickets: SimpleQueue[bool] = SimpleQueue()
        self._items: SimpleQueue[Piece | BaseException | None] = SimpleQueue()

    def next(self) -> Piece | BaseException | None:
        """The next piece, or how the answer ended: with None if well, else with its exception."""
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
        if self.record is not None and self._tickets.empty():  # nobody waits for a piece, perhaps for good
            self.record.save()
        self._tickets.get()
        self.check()
        self._items.put(piece)

    def end(self, error: BaseException | None) -> None:
        self._items.put(error)


def _run(work: Callable[[Channel], None], channel: Channel, stream: Any, reader: threading.Thread) -> None:
    """Runs in the thread, on the current GPU and stream of the thread that reads."""
    read_by(reader)
    end: BaseException | None = None
    try:
        with torch.cuda.stream(stream):
            work(channel)
    except Abandoned:
        pass
    except (StopIteration, StopAsyncIteration) as error:  # a callback's: it would look like the end of the answer
        end = RuntimeError(f"a callback raised {type(error).__name__}")
        end.__cause__ = error
    except BaseException as error:
        end = error
    channel.end(end)


def _end(channel: Channel, thread: threading.Thread | None) -> None:
    channel.close()
    if thread not in (None, threading.current_thread()):  # it collects garbage and runs callbacks, too
        thread.join()
