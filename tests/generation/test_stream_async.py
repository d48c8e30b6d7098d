"""`async for piece in stream`: the pieces of `for`, while the event loop goes on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import torch
from alike import assert_same
from PIL import Image
from streams import GREEDY, PROMPT, Streamer, image, is_free, llava, nothing_left, running, state  # noqa: F401

from dexar_fast import Explainer, InputError
from dexar_fast.generation.stream import Piece, Stream


async def pieces_of(stream: Stream) -> list[Piece]:
    return [piece async for piece in stream]


def test_the_pieces_are_those_of_for(llava: Explainer, image: Image.Image) -> None:
    expected = list(llava.stream(image, PROMPT, chunk_size=4, **GREEDY))
    stream = llava.stream(image, PROMPT, chunk_size=4, **GREEDY)
    found = asyncio.run(pieces_of(stream))
    assert [piece.first for piece in found] == [0, 4, 8]
    for piece, other in zip(found, expected, strict=True):
        assert_same(piece, other)
    assert stream.explanation().text == "".join(piece.text for piece in found)
    assert asyncio.run(pieces_of(stream)) == []


def test_the_event_loop_goes_on(llava: Explainer, image: Image.Image) -> None:
    class Slow(Streamer):
        def put(self, ids: torch.Tensor) -> None:
            super().put(ids)
            time.sleep(0.02)

    async def read() -> tuple[int, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        found = await pieces_of(llava.stream(image, PROMPT, chunk_size=4, streamer=Slow(), **GREEDY))
        ticking.cancel()
        return len(found), ticks

    pieces, ticks = asyncio.run(read())
    assert pieces == 3 and ticks > 20  # of some 200 in 11 x 0.02 s


def test_two_tasks_stream_from_one_model(llava: Explainer, image: Image.Image) -> None:
    async def both() -> list[list[Piece]]:
        streams = [llava.stream(image, PROMPT, chunk_size=3, **GREEDY) for _ in range(2)]
        return await asyncio.gather(*map(pieces_of, streams))

    first, second = asyncio.run(both())
    for piece, other in zip(first, second, strict=True):
        assert_same(piece, other)


def test_a_cancelled_task_ends_the_stream(llava: Explainer, image: Image.Image) -> None:
    before = state(llava.model)
    streamer = Streamer()

    class Slow(Streamer):
        def put(self, ids: torch.Tensor) -> None:
            streamer.put(ids)
            time.sleep(0.05)

    async def read() -> Stream:
        stream = llava.stream(image, PROMPT, chunk_size=50, streamer=Slow(), max_new_tokens=60, min_new_tokens=60)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pieces_of(stream), 0.3)
        assert not running() and is_free(llava.model)
        assert await pieces_of(stream) == []
        return stream

    asyncio.run(read())
    assert state(llava.model) == before and len(streamer.ids) < 30


def test_leaving_the_loop_and_closing_ends_it(llava: Explainer, image: Image.Image) -> None:
    async def read() -> Stream:
        with llava.stream(image, PROMPT, chunk_size=2, **GREEDY) as stream:
            async for _ in stream:
                break
        return stream

    assert len(asyncio.run(read()).explanation()) >= 2
    assert not running()


@pytest.mark.parametrize(
    ("error", "raised"),
    [(ValueError("mine"), ValueError), (StopIteration(), RuntimeError), (StopAsyncIteration(), RuntimeError)],
)  # fmt: skip
def test_what_a_callback_raises_comes_out(
    llava: Explainer, image: Image.Image, error: Exception, raised: type[Exception]
) -> None:
    stream = llava.stream(image, PROMPT, chunk_size=2, streamer=Streamer(error), **GREEDY)
    with pytest.raises(raised) as caught:
        asyncio.run(pieces_of(stream))
    assert error in (caught.value, caught.value.__cause__)


def test_in_a_callback_of_the_same_model_it_is_refused_not_waited_for(llava: Explainer, image: Image.Image) -> None:
    refused: list[Any] = []

    class Asking(Streamer):
        def put(self, ids: torch.Tensor) -> None:
            super().put(ids)
            if self.puts == 2:
                with pytest.raises(InputError, match="in the middle of another explanation") as caught:
                    asyncio.run(pieces_of(llava.stream(image, PROMPT, **GREEDY)))
                refused.append(caught.value)

    llava.explain(image, PROMPT, streamer=Asking(), max_new_tokens=3)
    assert len(refused) == 1
