"""Whatever goes wrong in mid-answer, the pool gets its slots back and what it holds stays right."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest
import small_llava
import torch
from alike import PROMPTS, assert_same
from PIL import Image
from transformers import DynamicCache

from dexar_fast import Explainer, Explanation, InputError
from dexar_fast._C import BudgetExhausted
from dexar_fast.attribution.calls.gradients import CallGradients
from dexar_fast.kvcache import pool
from dexar_fast.kvcache.cache import PoolCache
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.model.cache import to_forward, to_generate

BLOCK = 4
ANSWER = "a red circle"


class Fault(Exception):
    """None of ours."""


class After:
    """Raises when it has been called so many times, as a streamer, too."""

    def __init__(self, calls: int, error: type[BaseException] = Fault) -> None:
        self.left = calls
        self.error = error

    def __call__(self, *_: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error

    put = __call__

    def end(self) -> None:
        pass

    def processor(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self()
        return scores

    def criterion(self, ids: torch.Tensor, _: torch.Tensor, **__: Any) -> torch.Tensor:
        self()
        return torch.zeros(len(ids), dtype=torch.bool)


@pytest.fixture(scope="module")
def alone() -> Explainer:
    processor = small_llava.processor()
    return Explainer(small_llava.model(processor.tokenizer), processor)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.effect_noise((64, 64), 80).convert("RGB")


@pytest.fixture(scope="module")
def expected(alone: Explainer, image: Image.Image) -> list[Explanation]:
    return [alone.explain(image, prompt, ANSWER) for prompt in PROMPTS]


def pooled(alone: Explainer, slots: int = 1024) -> Explainer:
    return Explainer(alone.model, alone.processor, pool=KVPool(slots, BLOCK))


def assert_empty(found: KVPool) -> None:
    stats = found.books.stats()
    assert (stats["held"], stats["sequences"]) == (0, 0)
    found.books.audit()


def interrupted_forward(model: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Ctrl-C in the second layer of the third forward."""
    layer = model.model.language_model.layers[1]
    monkeypatch.setitem(layer._forward_pre_hooks, -1, After(2, KeyboardInterrupt))
    return six()()


def interrupted_pass(model: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Ctrl-C in the second layer that is explained."""
    monkeypatch.setattr(CallGradients, "of", interrupting(CallGradients.of, After(1, KeyboardInterrupt)))
    return {"response": ANSWER}


def interrupting(function: Callable[..., Any], raising: After) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        raising()
        return function(*args, **kwargs)

    return wrapped


def six(**options: Any) -> Callable[..., dict[str, Any]]:
    return lambda *_: {"max_new_tokens": 6, "min_new_tokens": 6} | options


FAULTS: dict[str, tuple[Callable[..., dict[str, Any]], type[BaseException]]] = {
    "budget": (six(max_new_tokens=150), BudgetExhausted),
    "streamer": (lambda *_: six(streamer=After(3))(), Fault),
    "interrupt in a streamer": (lambda *_: six(streamer=After(3, KeyboardInterrupt))(), KeyboardInterrupt),
    "logits processor": (lambda *_: six(logits_processor=[After(2).processor])(), Fault),
    "beams": (lambda *_: six(logits_processor=[After(2).processor], num_beams=3)(), Fault),
    "stopping criterion": (lambda *_: six(stopping_criteria=[After(2).criterion])(), Fault),
    "interrupt in a forward": (interrupted_forward, KeyboardInterrupt),
    "interrupt in the pass": (interrupted_pass, KeyboardInterrupt),
}


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaves_an_empty_pool_and_right_answers(
    alone: Explainer, image: Image.Image, expected: list[Explanation], fault: str, warm: bool
) -> None:
    prepare, error = FAULTS[fault]
    explainer = pooled(alone, slots=100 if fault == "budget" else 1024)
    if warm:
        explainer.explain(image, PROMPTS[1], ANSWER)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(error):
        explainer.explain(image, PROMPTS[0], **prepare(alone.model, patched))
    assert explainer.pool is not None
    assert_empty(explainer.pool)
    for prompt, right in zip(PROMPTS, expected, strict=True):
        assert_same(explainer.explain(image, prompt, ANSWER), right)


@pytest.mark.parametrize("fault", ["streamer", "interrupt in a forward"])
def test_a_cache_of_its_own_goes_on_after_a_fault(alone: Explainer, image: Image.Image, fault: str) -> None:
    """Cropped to where it was, it equals one that met no fault."""
    shared = KVPool(1024, BLOCK)
    ids = torch.arange(10, 30)[None]
    results = []
    with torch.no_grad():
        for cache in (DynamicCache(), PoolCache(shared)):
            alone.model(input_ids=ids, **to_forward(alone.model, cache))
            prepare, error = FAULTS[fault]
            with pytest.MonkeyPatch.context() as patched, pytest.raises(error):
                options = prepare(alone.model, patched)
                more = torch.cat([ids, ids[:, :1]], dim=1)
                alone.model.generate(more, **to_generate(cache), do_sample=False, **options)
            if isinstance(cache, PoolCache):
                cache.truncate(20)
            else:
                for layer in cache.layers:
                    layer.keys, layer.values = layer.keys[:, :, :20], layer.values[:, :, :20]
            results.append(alone.model(input_ids=ids.flip(1), **to_forward(alone.model, cache)).logits)
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-6)
    del cache
    assert_empty(shared)


class Interrupt:
    """Traces this thread; raises KeyboardInterrupt before the n-th instruction in dexar_fast/kvcache/pool.py."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, _: Any) -> Interrupt | None:
        if frame.f_code.co_filename != pool.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def use(shared: KVPool) -> None:
    """Opening with a copy of a prefix, growth with a move, a fork that is moved, beams, a truncation."""
    states = torch.full((1, 2, 3, 8), 7.0)
    with PoolCache(shared, keys=held_keys(10)) as cache, cache.fork() as other:
        try:
            for grown in (cache, other):
                grown.update(states, states, 0)
            other.batch_repeat_interleave(3)
            other.reorder_cache(torch.tensor([2, 2, 0]))
            other.update(states.expand(3, -1, -1, -1), states.expand(3, -1, -1, -1), 0)
            other.truncate(5)
        except KeyboardInterrupt:
            for interrupted in (cache, other):
                go_on(interrupted, states)
            raise


def go_on(cache: PoolCache, states: torch.Tensor) -> None:
    """With what was there before, or not at all."""
    cache.truncate(5)
    with suppress(InputError):
        keys, _ = cache.update(states, states, 0)
        assert keys[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 7, 7, 7]


def held_keys(count: int) -> pool.Keys:
    return torch.arange(count).numpy().astype("uint64")


def test_an_interrupt_between_any_two_instructions_leaks_nothing() -> None:
    """Every instruction of pool.py in turn is the one that Ctrl-C comes before."""
    at, finished = 0, False
    while not finished:
        shared = KVPool(128, BLOCK)
        held, states = PoolCache(shared), torch.arange(10.0)[None, None, :, None].expand(1, 2, 10, 8)
        held.update(states, states, 0)
        held.commit(held_keys(10))
        for tensor in shared.layers[0]:
            tensor[:, :, 10:] = torch.nan  # not what the last round left in this memory
        tracing = sys.gettrace()
        try:
            sys.settrace(Interrupt(at))
            use(shared)
            finished = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(tracing)
        for found in (held.layers[0].keys, held.layers[0].values, *contents(shared, held_keys(11))):
            assert found is not None and found[0, 0, :, 0].tolist() == list(range(10))
        held.reset()
        assert_empty(shared)
        at += 1
    assert at > 300


def contents(shared: KVPool, keys: pool.Keys) -> tuple[Any, Any]:
    """What is known of these keys: the keys and values of the first layer."""
    with PoolCache(shared, keys) as cache:
        return cache.layers[0].keys, cache.layers[0].values


def test_a_fork_is_right_while_its_parent_closes(alone: Explainer) -> None:
    """The parent's slots are given away at once: the fork's must not be among them."""
    shared, ids = KVPool(64, BLOCK), torch.arange(10, 30)[None]
    with torch.no_grad():
        parent, plain = PoolCache(shared), DynamicCache()
        for cache in (parent, plain):
            alone.model(input_ids=ids, **to_forward(alone.model, cache))
        child = parent.fork()
        parent.reset()
        other = PoolCache(shared)
        alone.model(input_ids=ids.flip(1), **to_forward(alone.model, other))
        logits = [
            alone.model(input_ids=ids[:, :3], **to_forward(alone.model, cache)).logits for cache in (child, plain)
        ]
    torch.testing.assert_close(*logits, rtol=1e-6, atol=1e-6)
    child.reset()
    other.reset()
    assert_empty(shared)


def test_two_explainers_on_one_model_share_a_pool(
    alone: Explainer, image: Image.Image, expected: list[Explanation]
) -> None:
    first = pooled(alone)
    second = Explainer(alone.model, alone.processor, pool=first.pool, mode="official", chunk_size=2)
    official = Explainer(alone.model, alone.processor, mode="official").explain(image, PROMPTS[1], ANSWER)
    assert_same(first.explain(image, PROMPTS[0], ANSWER), expected[0])
    assert first.pool is not None
    assert first.pool.books.stats()["reused_slots"] == 0
    assert_same(second.explain(image, PROMPTS[1], ANSWER), official)
    assert first.pool.books.stats()["reused_slots"] > len(official.visual_positions)
    assert_same(first.explain(image, PROMPTS[2], ANSWER), expected[2])
    assert_empty(first.pool)


def test_a_thread_for_every_request(alone: Explainer, image: Image.Image, expected: list[Explanation]) -> None:
    """Two explainers and six threads on a pool too small to keep all their prompts."""
    first = pooled(alone, slots=expected[0].metadata["prompt_tokens"] + 40)
    explainers = [first, Explainer(alone.model, alone.processor, pool=first.pool)]
    found: dict[int, Explanation] = {}

    def ask(index: int) -> None:
        picture = image if index % 3 else image.transpose(Image.Transpose.ROTATE_90)
        found[index] = explainers[index % 2].explain(picture, PROMPTS[index % 3], ANSWER)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turned = alone.explain(image.transpose(Image.Transpose.ROTATE_90), PROMPTS[0], ANSWER)
    assert sorted(found) == list(range(6))
    for index, explanation in found.items():
        assert_same(explanation, expected[index % 3] if index % 3 else turned)
    assert first.pool is not None
    assert_empty(first.pool)
