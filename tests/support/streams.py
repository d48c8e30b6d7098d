"""What the tests of streams share: a small model, a streamer, and what a stream must leave as it was."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import small_llava
import torch
from PIL import Image
from transformers import (
    LogitsProcessor,
)

from dexar_fast import Explainer
from dexar_fast.model.lending.locks import model_lock

PROMPT = "what is on the left"
TOKENS = 11
GREEDY = {"do_sample": False, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
THREAD = "dexar_fast.generation.stream"


class Forced(LogitsProcessor):
    """Has the model answer with these ids."""

    def __init__(self, ids: list[int]) -> None:
        self.left = iter(ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, next(self.left)] = 0
        return forced


class Streamer:
    """A user's own: counts the tokens, and may raise at one of them."""

    def __init__(self, error: BaseException | None = None, at: int = 3) -> None:
        self.ids: list[int] = []
        self.puts = 0
        self.ended = False
        self._error, self._at = error, at

    def put(self, ids: torch.Tensor) -> None:
        self.puts += 1
        if self.puts > 1:
            self.ids += ids.tolist()
        if self._error and len(self.ids) == self._at:
            raise self._error

    def end(self) -> None:
        self.ended = True


@pytest.fixture
def llava() -> Explainer:
    """Its model has run before: transformers installs hooks of its own in a model's first forward."""
    processor = small_llava.processor()
    model = small_llava.model(processor.tokenizer)
    Explainer(model, processor).explain(Image.new("RGB", (16, 16)), PROMPT, "a")
    return Explainer(model, processor)


@pytest.fixture
def image() -> Image.Image:
    return small_llava.noise()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After every test no thread of a stream lives."""
    yield
    gc.collect()
    assert not running()


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def state(model: Any) -> list[Any]:
    """What a stream changes for a while: hooks, the attention, the offsets of positions."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    offsets = [module.rope_deltas for module in model.modules() if "rope_deltas" in vars(module)]
    return [hooks, model.config.get_text_config()._attn_implementation, model.training, offsets]


def is_free(model: Any) -> bool:
    """Whether another thread could take the model."""
    taken: list[bool] = []

    def take() -> None:
        lock = model_lock(model)
        taken.append(lock.acquire(timeout=0))
        if taken[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return taken[0]
