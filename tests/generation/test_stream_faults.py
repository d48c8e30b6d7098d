"""However a stream ends, its model is free and as it was; readers, callbacks and threads may do as they like."""

from __future__ import annotations

import _thread
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import small_llava
import torch
import zoo
from alike import assert_same
from PIL import Image
from streams import GREEDY, PROMPT, Forced, Streamer, image, is_free, llava, nothing_left, running, state  # noqa: F401
from transformers import (
    LogitsProcessorList,
)
from transformers.generation.streamers import BaseStreamer

from dexar_fast import Explainer, Explanation, InputError, NumericalError
from dexar_fast._C import BudgetExhausted
from dexar_fast.generation.stream import Piece, Stream
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.model.lending import session
from dexar_fast.model.lending.locks import model_lock

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("end", ["close", "with", "exception", "garbage", "cycle", "exhausted"])
def test_however_it_ends_the_model_is_free_and_as_it_was(image: Image.Image, end: str) -> None:
    processor, pool = small_llava.processor(), KVPool(256, 4)
    explainer = Explainer(small_llava.model(processor.tokenizer), processor, pool=pool)
    model = explainer.model
    expected = explainer.explain(image, PROMPT, "a red circle")
    before = state(model)
    stream = explainer.stream(image, PROMPT, chunk_size=2, max_new_tokens=60, do_sample=False)
    next(stream)
    assert running()
    if end == "close":
        stream.close()
        stream.close()
        with pytest.raises(StopIteration):
            next(stream)
    elif end == "with":
        with stream:
            next(stream)
    elif end == "exception":
        with pytest.raises(ZeroDivisionError):
            for _ in explainer.stream(image, PROMPT, chunk_size=2, max_new_tokens=60):
                _ = 1 / 0
        stream.close()
    elif end == "garbage":
        del stream
    elif end == "cycle":
        stream.itself = stream  # type: ignore[attr-defined]
        del stream
        gc.collect()
    else:
        list(stream)
    assert not running()
    assert is_free(model)
    assert state(model) == before
    assert pool.books.stats()["held"] == 0

    pool.books.audit()
    assert_same(explainer.explain(image, PROMPT, "a red circle"), expected)


def test_a_turn_of_a_chat_that_is_dropped_ends_too(image: Image.Image) -> None:
    processor, pool = small_llava.processor(), KVPool(256, 4)
    chat = Explainer(small_llava.model(processor.tokenizer), processor, pool=pool).chat(image)
    stream = chat.stream(PROMPT, chunk_size=1, max_new_tokens=60, do_sample=False)
    next(stream)
    assert running()
    del stream
    assert not running() and chat.turns == []
    assert pool.books.stats()["held"] == 0


class CloseAt(BaseStreamer):
    """Closes a stream at a token of the answer."""

    def __init__(self, tokens: int) -> None:
        self.left = tokens + 1  # the prompt comes first
        self.stream: Stream

    def put(self, _: torch.Tensor) -> None:
        self.left -= 1
        if self.left == 0:
            self.stream.close()

    def end(self) -> None:
        raise AssertionError("it was to end before")


@pytest.mark.parametrize("chunk_size", [4, 64])
def test_an_early_end_explains_what_was_written(llava: Explainer, image: Image.Image, chunk_size: int) -> None:
    """Ten tokens: no piece of 64 is full then, and the third of 4 is not."""
    options = {"do_sample": False, "min_new_tokens": 10}
    expected = llava.explain(image, PROMPT, max_new_tokens=10, **options)
    closing = CloseAt(10)
    closing.stream = llava.stream(image, PROMPT, chunk_size=chunk_size, streamer=closing, max_new_tokens=60, **options)
    list(closing.stream)
    found = closing.stream.explanation()
    assert torch.equal(found.token_ids, expected.token_ids)
    assert not found.metadata["complete"]
    assert_same(found, expected)


def test_a_stream_that_is_not_read_runs_nothing(llava: Explainer, image: Image.Image) -> None:
    stream = llava.stream(image, PROMPT)
    assert not running()
    with pytest.raises(InputError, match="no token"):
        stream.explanation()
    stream.close()
    assert list(stream) == []


def test_what_came_before_an_early_end_is_explained(llava: Explainer, image: Image.Image) -> None:
    with llava.stream(image, PROMPT, chunk_size=2, **GREEDY) as stream:
        pieces = [next(stream), next(stream)]
    found = stream.explanation()
    assert found.token_ids.tolist()[:4] == [i for piece in pieces for i in piece.token_ids.tolist()]
    assert not found.metadata["complete"]
    given = llava.explain_inputs(
        llava.processor(images=image, text=found.metadata["prompt"], return_tensors="pt"), found.token_ids
    )
    assert_same(found, given)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_what_a_callback_raises_comes_out_of_the_iteration(
    llava: Explainer, image: Image.Image, error: BaseException
) -> None:
    before = state(llava.model)
    stream = llava.stream(image, PROMPT, chunk_size=1, streamer=Streamer(error, at=3), max_new_tokens=9)
    assert isinstance(next(stream), Piece)
    next(stream)
    with pytest.raises(type(error)) as caught:
        next(stream)
    assert caught.value is error
    assert not running()
    assert state(llava.model) == before
    assert len(stream.explanation()) == 2
    with pytest.raises(StopIteration):
        next(stream)


def test_a_callback_that_stops_iterating_does_not_look_like_the_end(llava: Explainer, image: Image.Image) -> None:
    forced = LogitsProcessorList([Forced([70, 71, 72])])
    stream = llava.stream(image, PROMPT, chunk_size=2, logits_processor=forced, max_new_tokens=9)
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(stream)
    assert not stream.explanation().metadata["complete"]


def test_broken_weights_are_named(llava: Explainer, image: Image.Image) -> None:
    llava.model.model.language_model.layers[1].mlp.down_proj.weight.data.fill_(torch.nan)
    for options in ({"do_sample": False}, {"do_sample": True}):
        with pytest.raises(NumericalError, match="layer 1"):
            list(llava.stream(image, PROMPT, chunk_size=1, max_new_tokens=9, **options))


def test_a_pool_that_is_full_in_the_middle_ends_the_stream(image: Image.Image) -> None:
    processor, pool = small_llava.processor(), KVPool(64, 4)
    explainer = Explainer(small_llava.model(processor.tokenizer), processor, pool=pool)
    stream = explainer.stream(image, PROMPT, chunk_size=2, max_new_tokens=100, min_new_tokens=100)
    found = 0
    with pytest.raises(BudgetExhausted):
        for piece in stream:
            found += len(piece)
    assert 0 < found == len(stream.explanation())
    assert pool.books.stats()["held"] == 0
    pool.books.audit()
    assert len(explainer.explain(image, PROMPT, "a")) == 1


def test_ctrl_c_while_the_reader_waits(llava: Explainer, image: Image.Image) -> None:
    class Interrupting(Streamer):
        def put(self, ids: torch.Tensor) -> None:
            super().put(ids)
            if len(self.ids) == 3:
                _thread.interrupt_main()
                time.sleep(0.2)

    before = state(llava.model)
    stream = llava.stream(image, PROMPT, chunk_size=2, streamer=Interrupting(), max_new_tokens=40)
    with pytest.raises(KeyboardInterrupt):  # the third token may come before the first piece is taken
        list(stream)
        time.sleep(1)
    assert not running()
    assert state(llava.model) == before
    assert len(stream.explanation()) >= 2


class Interrupted:
    """Ctrl-C comes when its attribute is set for the first time."""

    x = 0
    times = 0

    def __setattr__(self, name: str, value: Any) -> None:
        Interrupted.times += 1
        if Interrupted.times == 1:
            raise KeyboardInterrupt
        object.__setattr__(self, name, value)


def test_ctrl_c_while_the_model_is_taken_leaves_it_as_it_was(
    llava: Explainer, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = session._ours
    llava.model.train()
    before = state(llava.model)
    owner = Interrupted()
    with monkeypatch.context() as patch:
        patch.setattr(session, "_ours", lambda model: [*ours(model)[:3], (owner, "x", 1), *ours(model)[3:]])
        with pytest.raises(KeyboardInterrupt):
            llava.explain(image, PROMPT, "a red circle")
    assert owner.x == 0
    assert all(module.training for module in llava.model.modules())
    assert state(llava.model) == before
    assert is_free(llava.model)


def test_a_slow_reader_holds_generation_back(llava: Explainer, image: Image.Image) -> None:
    streamer = Streamer()
    stream = llava.stream(image, PROMPT, chunk_size=3, streamer=streamer, **GREEDY | {"max_new_tokens": 40})
    next(stream)
    time.sleep(0.5)
    assert len(streamer.ids) == 6
    stream.close()


def test_while_the_reader_is_busy_the_model_is_free_and_as_it_was() -> None:
    """Also between the pieces of two streams: M-RoPE's offsets lie on the model."""
    model, inputs = zoo.build("qwen2_5_vl", torch.float32)
    _, other = zoo.build("qwen2_5_vl_two_images", torch.float32)
    explainer = Explainer(model)
    expected = [explainer.explain_inputs(asked, **GREEDY) for asked in (inputs, other)]
    before = state(model)
    streams = [explainer.stream_inputs(asked, chunk_size=2, **GREEDY) for asked in (inputs, other)]
    for _ in range(3):
        for stream in streams:
            next(stream)
        assert_same(explainer.explain_inputs(other, target_ids=expected[1].token_ids), expected[1])
    for stream, explanation in zip(streams, expected, strict=True):
        list(stream)
        assert_same(stream.explanation(), explanation)
    assert state(model) == before


def test_threads_may_stream_from_one_model(llava: Explainer, image: Image.Image) -> None:
    expected = llava.explain(image, PROMPT, **GREEDY)
    found: list[Explanation] = []

    def read() -> None:
        stream = llava.stream(image, PROMPT, chunk_size=2, **GREEDY)
        list(stream)
        found.append(stream.explanation())

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for explanation in found:
        assert_same(explanation, expected)


def test_a_stream_taken_by_another_waits_and_can_be_given_up(llava: Explainer, image: Image.Image) -> None:
    stream = llava.stream(image, PROMPT, **GREEDY)
    with model_lock(llava.model):
        reader = threading.Thread(target=lambda: list(stream))
        reader.start()
        time.sleep(0.1)
        stream.close()
        reader.join(timeout=10)
        assert not reader.is_alive()


class Calling(Streamer):
    """Calls a function at the third token."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call

    def put(self, ids: torch.Tensor) -> None:
        super().put(ids)
        if len(self.ids) == 3:
            self._call()


def test_a_callback_of_its_own_may_close_it(llava: Explainer, image: Image.Image) -> None:
    stream = llava.stream(image, PROMPT, chunk_size=2, streamer=Calling(lambda: stream.close()), **GREEDY)
    assert len(list(stream)) < 3
    stream.close()
    assert not running()


@pytest.mark.parametrize("begun", [False, True])
def test_a_stream_in_a_callback_is_refused_not_waited_for(llava: Explainer, image: Image.Image, begun: bool) -> None:
    expected = llava.explain(image, PROMPT, **GREEDY)
    stream = llava.stream(image, PROMPT, chunk_size=2, **GREEDY)
    if begun:
        next(stream)

    def read() -> None:
        with pytest.raises(InputError, match="in the middle of another explanation"):
            next(stream)

    assert_same(llava.explain(image, PROMPT, streamer=Calling(read), **GREEDY), expected)
    list(stream)
    assert_same(stream.explanation(), expected)


def test_a_program_may_end_in_the_middle(model_folder: Any) -> None:
    program = f"""
from PIL import Image
from dexar_fast import Explainer
stream = Explainer.from_pretrained({str(model_folder)!r}).stream(Image.new("RGB", (64, 64)), "what", chunk_size=1)
print(len(next(stream)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
