"""A pool without room: who waits for it, how long, and who is refused at once. No test depends on a duration."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import small_llava
import torch
import zoo
from alike import assert_same
from streams import PROMPT

from dexar_fast import Explainer, InputError
from dexar_fast._C import BudgetExhausted
from dexar_fast.kvcache import waiting
from dexar_fast.kvcache.cache import PoolCache
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.kvcache.reuse import PooledPrefix
from dexar_fast.model.cache import to_generate
from dexar_fast.model.lending.locks import model_lock

LONG = 3600.0  # seconds: whoever waits so long hangs
PATIENCE = 60.0  # of the tests themselves


class Holder:
    """A thread that holds some slots of a pool until it is told to let go."""

    def __init__(self, pool: KVPool, slots: int = 48, let_go: Callable[[PoolCache], None] = PoolCache.reset) -> None:
        self._free, held = threading.Event(), threading.Event()

        def hold() -> None:
            cache = PoolCache(pool, np.arange(1000, 1000 + slots, dtype=np.uint64))
            held.set()
            assert self._free.wait(PATIENCE)
            let_go(cache)

        self.thread = threading.Thread(target=hold)
        self.thread.start()
        assert held.wait(PATIENCE)

    def free(self) -> None:
        self._free.set()
        self.thread.join(PATIENCE)


@pytest.fixture
def pool() -> KVPool:
    return KVPool(64, 4, wait=LONG)


@pytest.fixture
def holder(pool: KVPool) -> Iterator[Holder]:
    made = Holder(pool)
    yield made
    made.free()


@pytest.fixture
def when_waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Sets what happens in the place of the first sleep of who waits."""

    def instead(act: Callable[[], None]) -> None:
        first = iter([act])
        sleep = waiting.sleep
        monkeypatch.setattr(waiting, "sleep", lambda seconds: next(first, lambda: sleep(seconds))())

    return instead


@pytest.fixture
def never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seconds: float) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(waiting, "sleep", refuse)


def opened(pool: KVPool, slots: int = 32) -> PoolCache:
    return PoolCache(pool, np.arange(slots, dtype=np.uint64))


def states(tokens: int) -> torch.Tensor:
    return torch.randn(1, 2, tokens, 8)


def test_a_sequence_waits_until_another_thread_frees_room(pool: KVPool, holder: Holder, when_waiting: Any) -> None:
    when_waiting(holder.free)
    cache = opened(pool)
    assert pool.books.stats()["sequences"] == 1 and cache.get_seq_length() == 0
    pool.books.audit()


def test_growth_waits_too(pool: KVPool, holder: Holder, when_waiting: Any) -> None:
    cache = PoolCache(pool)
    cache.update(states(8), states(8), 0)
    when_waiting(holder.free)
    keys, _ = cache.update(states(40), states(40), 0)
    assert keys.shape[2] == 48 and not holder.thread.is_alive()


def test_what_is_dropped_without_a_word_is_noticed(pool: KVPool, when_waiting: Any) -> None:
    holder = Holder(pool, let_go=lambda cache: None)
    when_waiting(holder.free)
    opened(pool)
    assert not holder.thread.is_alive()


def test_the_wait_is_bounded(holder: Holder, pool: KVPool) -> None:
    short = KVPool(64, 4, wait=0.01)
    other = Holder(short)
    with pytest.raises(BudgetExhausted, match="no run of 8 blocks"):
        opened(short)
    assert other.thread.is_alive() and short.holders._line == []
    other.free()


@pytest.mark.usefixtures("never_waits")
def test_without_a_wait_it_is_refused_at_once() -> None:
    pool = KVPool(64, 4, wait=0)
    holder = Holder(pool)
    with pytest.raises(BudgetExhausted):
        opened(pool)
    holder.free()


@pytest.mark.usefixtures("never_waits")
def test_who_holds_the_room_itself_is_refused_at_once(pool: KVPool) -> None:
    held = opened(pool, 48)
    with pytest.raises(BudgetExhausted):
        opened(pool)
    held.reset()
    opened(pool)


@pytest.mark.usefixtures("never_waits", "holder")
def test_what_never_fits_is_refused_at_once(pool: KVPool) -> None:
    with pytest.raises(BudgetExhausted):
        opened(pool, 65)
    cache = PoolCache(pool)
    with pytest.raises(BudgetExhausted):
        cache.update(states(65), states(65), 0)


@pytest.mark.usefixtures("never_waits")
def test_what_an_ended_thread_has_left_behind_is_not_waited_for(pool: KVPool) -> None:
    left: list[PoolCache] = []
    Holder(pool, let_go=left.append).free()
    with pytest.raises(BudgetExhausted):
        opened(pool)
    left.clear()


def test_an_impatient_cache_does_not_wait(pool: KVPool, holder: Holder, never_waits: None) -> None:
    with pytest.raises(BudgetExhausted):
        PoolCache(pool, np.arange(32, dtype=np.uint64), patient=False)


def test_of_two_that_wait_for_each_other_the_first_goes_on(pool: KVPool, when_waiting: Any) -> None:
    """The second, which is refused, gives up what it holds."""
    refused: list[type] = []

    def second() -> None:
        with opened(pool, 28):
            both.wait(PATIENCE)
            try:
                assert waits.wait(PATIENCE)
                opened(pool, 40)
            except BudgetExhausted as error:
                refused.append(type(error))

    both, waits = threading.Barrier(2), threading.Event()
    other = threading.Thread(target=second)
    with opened(pool, 28):
        other.start()  # behind the first's blocks, so that what it gives up lies in a row with what is free
        both.wait(PATIENCE)
        when_waiting(waits.set)
        opened(pool, 36).reset()
    other.join(PATIENCE)
    assert refused == [BudgetExhausted] and pool.holders._line == []


def test_ctrl_c_ends_the_wait_and_leaves_nothing_behind(pool: KVPool, holder: Holder, when_waiting: Any) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    when_waiting(interrupt)
    with pytest.raises(KeyboardInterrupt):
        opened(pool)
    assert pool.holders._line == [] and pool.books.stats()["sequences"] == 1
    pool.books.audit()


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "10", None, 1j])
def test_a_wait_that_is_no_duration_is_refused(seconds: Any) -> None:
    with pytest.raises(InputError, match="wait must be a number of seconds from 0"):
        KVPool(64, 4, wait=seconds)


# --- an Explainer


@pytest.fixture
def llava() -> Explainer:
    processor = small_llava.processor()
    model = small_llava.model(processor.tokenizer)
    return Explainer(model, processor)


def pooled(explainer: Explainer, slots: int, wait: float = LONG) -> Explainer:
    return Explainer(explainer.model, explainer.processor, pool=KVPool(slots, 4, wait=wait))


def prompt_tokens(explainer: Explainer) -> int:
    return explainer.explain(small_llava.noise(), PROMPT, "a").metadata["prompt_tokens"]


def test_a_request_lends_the_model_to_the_stream_that_it_waits_for(llava: Explainer, when_waiting: Any) -> None:
    image, stop = small_llava.noise(), threading.Event()
    explainer = pooled(llava, prompt_tokens(llava) + 16)
    begun, read = threading.Event(), []

    def stream() -> None:
        for piece in explainer.stream(image, PROMPT, chunk_size=2, max_new_tokens=8, min_new_tokens=8):
            read.append(len(piece))
            begun.set()
            assert stop.wait(PATIENCE)

    reader = threading.Thread(target=stream)
    reader.start()
    assert begun.wait(PATIENCE)

    def finish() -> None:
        assert not model_lock(llava.model)._is_owned()  # type: ignore[attr-defined]
        stop.set()
        reader.join(PATIENCE)

    when_waiting(finish)
    other = small_llava.noise(48)
    found = explainer.explain(other, PROMPT, "a cat on the mat")
    assert sum(read) == 8
    assert_same(found, llava.explain(other, PROMPT, "a cat on the mat"))


@pytest.mark.usefixtures("never_waits")
def test_two_streams_of_one_reader_are_refused_at_once(llava: Explainer) -> None:
    explainer = pooled(llava, prompt_tokens(llava) + 16)
    options = {"chunk_size": 2, "max_new_tokens": 8, "min_new_tokens": 8}
    with explainer.stream(small_llava.noise(), PROMPT, **options) as first:
        next(first)
        with pytest.raises(BudgetExhausted):
            next(explainer.stream(small_llava.noise(48), PROMPT, **options))
        assert sum(map(len, first)) == 6


def test_a_stream_that_is_closed_while_it_waits_ends(llava: Explainer, when_waiting: Any) -> None:
    explainer = pooled(llava, prompt_tokens(llava) + 4)
    holder = Holder(explainer.pool, 16)
    stream = explainer.stream(small_llava.noise(), PROMPT)
    when_waiting(stream._channel.close)
    assert list(stream) == []
    assert explainer.pool.holders._line == []
    holder.free()


@pytest.mark.parametrize("changed", [False, True])
def test_what_is_reused_after_a_wait_is_of_the_model_as_it_is_then(changed: bool) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    inputs.pop("labels", None)
    length = inputs["input_ids"].shape[1]
    pool = KVPool(length + 64, 4, wait=LONG)
    with PooledPrefix(pool, model, inputs) as prefix:
        cache, left = prefix.begin(inputs)
        model.generate(**left, **to_generate(cache), max_new_tokens=1)
        prefix.ran(cache)
    holder = Holder(pool)

    @contextmanager
    def lent() -> Iterator[None]:
        holder.free()
        if changed:
            with torch.no_grad():
                model.get_input_embeddings().weight.mul_(2)
        yield

    answer = torch.zeros(pool.slots - 8 - length, dtype=torch.long)
    with PooledPrefix(pool, model, inputs, answer, lent=lent) as prefix:
        assert prefix.begin(inputs)[0].get_seq_length() == (0 if changed else length - 1)
        assert not holder.thread.is_alive()
