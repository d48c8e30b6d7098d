"""An Explainer in other processes: it pickles for spawn, and a forked child fails at once where it would hang."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import small_llava
import torch
from alike import assert_same
from PIL import Image
from streams import GREEDY, PROMPT
from transformers import LogitsProcessor, LogitsProcessorList

from dexar_fast import Explainer, InputError, KVPool
from dexar_fast.model.lending.locks import model_lock

LONGEST = 60.0  # seconds


@pytest.fixture
def image() -> Image.Image:
    return small_llava.noise()


@pytest.fixture
def llava(image: Image.Image) -> Explainer:
    """It has explained before: transformers has its hooks in the model."""
    processor = small_llava.processor()
    explainer = Explainer(small_llava.model(processor.tokenizer), processor)
    explainer.explain(image, PROMPT, "a")
    return explainer


def hooks(model: Any) -> list[list[Any]]:
    return [list(module._forward_hooks.values()) for module in model.modules()]


def forked(work: Callable[[], Any]) -> str:
    """What the work says in a forked child: its result, or its error. Fails where the child hangs."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    try:
        assert select.select([reader], [], [], LONGEST)[0], "the child hangs"
        return os.read(reader, 2**16).decode()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)


# --- pickled


def test_a_pickled_explainer_explains_the_same(llava: Explainer, image: Image.Image) -> None:
    before, flags = hooks(llava.model), [set(vars(module)) for module in llava.model.modules()]
    twin = pickle.loads(pickle.dumps(llava))
    assert hooks(llava.model) == before and [set(vars(module)) for module in llava.model.modules()] == flags
    assert twin.decoder is None and llava.decoder is not None
    assert twin.settings == llava.settings
    for answer in ("a red circle", None):
        options = {} if answer else GREEDY
        assert_same(twin.explain(image, PROMPT, answer, **options), llava.explain(image, PROMPT, answer, **options))


def test_the_copy_of_a_model_captures_hidden_states_as_the_model_does(llava: Explainer, image: Image.Image) -> None:
    twin = pickle.loads(pickle.dumps(llava))
    inputs = llava.processor(images=image, text="<image> a", return_tensors="pt")
    with torch.no_grad():
        expected, found = (ex.model(**inputs, output_hidden_states=True).hidden_states for ex in (llava, twin))
    torch.testing.assert_close(found, expected)
    twin.model(**inputs)
    assert list(map(len, hooks(twin.model))) == list(map(len, hooks(llava.model)))


def test_knobs_a_users_hook_and_shared_weights_are_pickled_too(llava: Explainer) -> None:
    model = llava.model
    model.lm_head.weight = model.get_input_embeddings().weight
    model.lm_head.register_forward_hook(print)
    twin = pickle.loads(pickle.dumps(Explainer(model, sequence_norm="token", chunk_size=3)))
    assert twin.settings.sequence_norm == "token" and twin.chunk_size == 3 and twin.processor is None
    assert twin.model.lm_head.weight is twin.model.get_input_embeddings().weight
    assert list(twin.model.lm_head._forward_hooks.values()) == [print]


def test_a_spawned_process_explains_the_same(llava: Explainer, image: Image.Image) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        found = workers.apply_async(Explainer.explain, (llava, image, PROMPT, "a red circle")).get(LONGEST)
    assert_same(found, llava.explain(image, PROMPT, "a red circle"))


def test_a_pool_is_not_pickled(llava: Explainer) -> None:
    pooled = Explainer(llava.model, pool=KVPool(64))
    with pytest.raises(InputError, match="a KVPool cannot be copied or pickled: it belongs to one process"):
        pickle.dumps(pooled)


def test_an_explainer_at_work_is_not_pickled(llava: Explainer, image: Image.Image) -> None:
    refused: list[InputError] = []

    class Pickling(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            with pytest.raises(InputError) as caught:
                pickle.dumps(llava)
            refused.append(caught.value)
            return scores

    llava.explain(image, PROMPT, logits_processor=LogitsProcessorList([Pickling()]), max_new_tokens=1)
    with llava.stream(image, PROMPT, chunk_size=2, **GREEDY) as stream:
        next(stream)
        with pytest.raises(InputError, match="explaining an answer right now: pickle the Explainer when that is done"):
            pickle.dumps(llava)
    assert len(refused) == 1
    pickle.dumps(llava)


# --- forked


def test_a_forked_child_explains_on_one_thread(
    llava: Explainer, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explain() -> list[float]:
        torch.set_num_threads(1)
        return llava.explain(image, PROMPT, "a b").token_weights.tolist()

    assert forked(explain) == str(explain())


@pytest.mark.parametrize("model", ["the parent's", "its own"])
def test_a_forked_child_without_torchs_threads_fails_at_once(llava: Explainer, image: Image.Image, model: str) -> None:
    def explain() -> Any:
        torch.set_num_threads(2)
        return Explainer.from_pretrained() if model == "its own" else llava.explain(image, PROMPT, "a b")

    assert forked(explain).startswith("InputError: this process was forked from one that held a model, and torch would")


def test_a_fork_while_another_thread_explains_fails_at_once(llava: Explainer, image: Image.Image) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with model_lock(llava.model):
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        said = forked(lambda: llava.explain(image, PROMPT, "a b"))
        assert said.startswith("InputError: this process was forked while another thread of its parent explained")
        assert forked(lambda: len(list(llava.stream(image, PROMPT)))) == said
    finally:
        done.set()
        thread.join()


def test_a_stream_is_read_where_it_was_begun(llava: Explainer, image: Image.Image) -> None:
    with llava.stream(image, PROMPT, chunk_size=2, **GREEDY) as stream:
        next(stream)
        assert forked(lambda: next(stream)) == (
            "InputError: the stream belongs to the process from which this one was forked: read it there"
        )
        assert forked(stream.close) == "None"
        assert len(list(stream)) > 0


def test_a_child_of_a_process_without_a_model_is_free() -> None:
    code = (
        "import os, torch; from dexar_fast.model.lending.locks import check_process; torch.set_num_threads(2)\n"
        "if not os.fork(): check_process(torch.nn.Linear(1, 1)); print('free', flush=True); os._exit(0)\n"
        "os.wait()"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "free\n"
