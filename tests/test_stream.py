"""Streams give the explanation that explain() gives, leave generation as it is, and end cleanly however they end."""

from __future__ import annotations

import _thread
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import small_llava
import torch
import zoo
from PIL import Image
from test_explain_many import assert_same
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria

from dexar_fast import Explainer, Explanation, InputError, NumericalError
from dexar_fast.pool import KVPool
from dexar_fast.session import model_lock
from dexar_fast.stream import Piece

# Causal, M-RoPE, mixed windows, a prompt read in both directions, soft caps, experts, tiles, a video.
FAMILIES = (
    "llava",
    "bakllava",
    "qwen2_5_vl",
    "qwen3_vl_moe",
    "gemma3",
    "paligemma",
    "paligemma2",
    "aya_vision",
    "llava_onevision_video",
)
PROMPT = "what is on the left"
TOKENS = 11
GREEDY = {"do_sample": False, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
THREAD = "dexar_fast.stream"


class Seen(LogitsProcessor):
    """The logits of every step, bit for bit."""

    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.logits.append(scores.clone())
        return scores


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


def counts(explanation: Explanation) -> dict[str, Any]:
    """The diagnostics but which key wins: at layer 0 a token that comes twice has the same value twice, a tie."""
    return {name: value for name, value in explanation.diagnostics.items() if name != "text_winners"}


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


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 3, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_gives_the_explanation_of_explain_and_the_same_logits(
    family: str, chunk_size: int, pooled: bool
) -> None:
    model, inputs = zoo.build(family, torch.float32)
    pool = KVPool(256, 4) if pooled else None
    alone, streamed = Seen(), Seen()
    explainer = Explainer(model, pool=pool and KVPool(256, 4))
    expected = explainer.explain_inputs(inputs, logits_processor=LogitsProcessorList([alone]), **GREEDY)
    before = state(model)
    explainer = Explainer(model, pool=pool)  # which knows neither the decoder nor the prompt
    stream = explainer.stream_inputs(
        inputs, chunk_size=chunk_size, logits_processor=LogitsProcessorList([streamed]), **GREEDY
    )
    pieces = list(stream)
    assert [piece.first for piece in pieces] == list(range(0, TOKENS, chunk_size))
    assert all(torch.equal(a, b) for a, b in zip(alone.logits, streamed.logits, strict=True))
    whole = stream.explanation()
    assert_same(whole, expected)
    assert whole.tokens == expected.tokens
    assert counts(whole) == counts(expected)
    assert whole.metadata["complete"]
    for name in ("token_ids", "token_maps", "unfiltered_token_maps", "token_weights", "head_weights", "text_scores"):
        assert torch.equal(torch.cat([getattr(piece, name) for piece in pieces]), getattr(whole, name))
    assert state(model) == before
    if pool:
        assert pool.books.stats()["held"] == 0
        pool.books.audit()


@pytest.mark.parametrize("chunk_size", [1, 3, 64])
def test_text_comes_with_its_maps(llava: Explainer, image: Image.Image, chunk_size: int) -> None:
    ids = llava.processor.tokenizer("the cat is on a red mät, it is", add_special_tokens=False).input_ids
    options = {"do_sample": False, "max_new_tokens": len(ids)}
    expected = llava.explain(image, PROMPT, logits_processor=LogitsProcessorList([Forced(ids)]), **options)
    stream = llava.stream(
        image, PROMPT, chunk_size=chunk_size, logits_processor=LogitsProcessorList([Forced(ids)]), **options
    )
    text = ""
    for piece in stream:
        text += piece.text
        assert piece.token_maps.shape == (len(piece.tokens), small_llava.SIDE**2)
        assert piece.heatmap(0).shape == (small_llava.SIDE, small_llava.SIDE)
    assert text == "the cat is on a red mät, it is"
    whole = stream.explanation()
    assert_same(whole, expected)
    assert whole.tokens == expected.tokens
    assert counts(whole) == counts(expected)
    assert whole.metadata["prompt"] == expected.metadata["prompt"]


@pytest.mark.parametrize("cut", [0, 2])
def test_a_character_split_over_tokens_comes_whole(llava: Explainer, image: Image.Image, cut: int) -> None:
    ids = llava.processor.tokenizer("cat 🙂", add_special_tokens=False).input_ids
    forced = ids[: len(ids) - cut]
    options = {"do_sample": False, "max_new_tokens": len(forced)}
    stream = llava.stream(
        image, PROMPT, chunk_size=1, logits_processor=LogitsProcessorList([Forced(forced)]), **options
    )
    texts = [piece.text for piece in stream]
    assert "".join(texts) == ("cat " if cut else "cat 🙂")
    assert texts.count("") == 3 - cut + (cut > 0)
    expected = llava.explain(image, PROMPT, logits_processor=LogitsProcessorList([Forced(forced)]), **options)
    assert stream.explanation().tokens == expected.tokens


@pytest.mark.parametrize(
    "knobs",
    [
        {"mode": "official"},
        {"text_set": "content"},
        {"text_set": "generated"},
        {"map_filter": ("rank", 5), "sequence_norm": "token"},
        {"chunk_size": 2},
        {"layers": [1]},
    ],
)
def test_knobs_hold_for_streams(image: Image.Image, knobs: dict[str, Any]) -> None:
    processor = small_llava.processor()
    explainer = Explainer(small_llava.model(processor.tokenizer), processor, **knobs)
    expected = explainer.explain(image, PROMPT, **GREEDY)
    stream = explainer.stream(image, PROMPT, chunk_size=5, **GREEDY)
    assert [len(piece) for piece in stream] == [5, 5, 1]
    assert_same(stream.explanation(), expected)
    torch.testing.assert_close(stream.explanation().sequence_map, expected.sequence_map, rtol=1e-4, atol=1e-5)


def test_a_prompt_that_ends_with_an_image_is_streamed() -> None:
    model, inputs = zoo.build("llava", torch.float32)
    end = int((inputs["input_ids"][0] == zoo.IMAGE).nonzero().max()) + 1
    inputs = {name: x[:, :end] if name in ("input_ids", "attention_mask") else x for name, x in inputs.items()}
    for pool in (None, KVPool(256, 4)):
        explainer, alone, streamed = Explainer(model, pool=pool), Seen(), Seen()
        expected = explainer.explain_inputs(inputs, logits_processor=LogitsProcessorList([alone]), **GREEDY)
        explainer.pool = pool and KVPool(256, 4)
        stream = explainer.stream_inputs(
            inputs, chunk_size=3, logits_processor=LogitsProcessorList([streamed]), **GREEDY
        )
        assert [len(piece) for piece in stream] == [3, 3, 3, 2]
        assert all(torch.equal(a, b) for a, b in zip(alone.logits, streamed.logits, strict=True))
        assert_same(stream.explanation(), expected)


def test_sampling_with_a_seed_gives_the_same_answer(llava: Explainer, image: Image.Image) -> None:
    options = {"do_sample": True, "temperature": 2.0, "max_new_tokens": TOKENS}
    torch.manual_seed(5)
    expected = llava.explain(image, PROMPT, **options)
    torch.manual_seed(5)
    stream = llava.stream(image, PROMPT, chunk_size=2, **options)
    assert [i for piece in stream for i in piece.token_ids.tolist()] == expected.token_ids.tolist()


def test_the_end_token_is_no_part_of_it(llava: Explainer, image: Image.Image) -> None:
    end = llava.model.generation_config.eos_token_id
    ids = [70, 71, 72, end]
    stream = llava.stream(
        image, PROMPT, chunk_size=2, max_new_tokens=9, logits_processor=LogitsProcessorList([Forced(ids)])
    )
    assert [piece.token_ids.tolist() for piece in stream] == [[70, 71], [72]]
    stream = llava.stream(image, PROMPT, logits_processor=LogitsProcessorList([Forced([end])]))
    with pytest.raises(InputError, match="empty"):
        next(stream)


class After(StoppingCriteria):
    """Interrupts an answer after so many tokens."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.left -= 1
        return torch.full((len(input_ids),), self.left <= 0)


def test_a_stopping_criterion_and_a_streamer_of_the_users_work(llava: Explainer, image: Image.Image) -> None:
    options = {"max_new_tokens": 40, "do_sample": False}
    streamer, other = Streamer(), Streamer()
    expected = llava.explain(image, PROMPT, streamer=streamer, stopping_criteria=[After(5)], **options)
    assert len(expected) == 5
    assert streamer.ids == expected.token_ids.tolist()
    given = llava.explain_inputs(
        llava.processor(images=image, text=expected.metadata["prompt"], return_tensors="pt"), expected.token_ids
    )
    assert_same(expected, given)
    stream = llava.stream(image, PROMPT, chunk_size=2, streamer=other, stopping_criteria=[After(5)], **options)
    assert [len(piece) for piece in stream] == [2, 2, 1]
    assert other.ids == streamer.ids
    assert other.ended
    assert_same(stream.explanation(), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_return_sequences": 2, "do_sample": True},
        {"generation_config": GenerationConfig(num_beams=2)},
    ],
)
def test_several_answers_at_once_are_refused(llava: Explainer, image: Image.Image, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="num_return_sequences"):
        llava.stream(image, PROMPT, **options)


@pytest.mark.parametrize("options", [{"chunk_size": 0}, {"max_new_tokens": 10**6}, {"generation_config": {}}])
def test_bad_arguments_are_refused_at_once(llava: Explainer, image: Image.Image, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        llava.stream(image, PROMPT, **options)


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


def test_broken_weights_are_named(llava: Explainer, image: Image.Image) -> None:
    llava.model.model.language_model.layers[1].mlp.down_proj.weight.data.fill_(torch.nan)
    for options in ({"do_sample": False}, {"do_sample": True}):
        with pytest.raises(NumericalError, match="layer 1"):
            list(llava.stream(image, PROMPT, chunk_size=1, max_new_tokens=9, **options))


def test_ctrl_c_while_the_reader_waits(llava: Explainer, image: Image.Image) -> None:
    class Interrupting(Streamer):
        def put(self, ids: torch.Tensor) -> None:
            super().put(ids)
            if len(self.ids) == 3:
                _thread.interrupt_main()
                time.sleep(0.2)

    before = state(llava.model)
    stream = llava.stream(image, PROMPT, chunk_size=2, streamer=Interrupting(), max_new_tokens=40)
    next(stream)
    with pytest.raises(KeyboardInterrupt):
        list(stream)
        time.sleep(1)
    assert not running()
    assert state(llava.model) == before
    assert len(stream.explanation()) >= 2


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


def test_a_program_may_end_in_the_middle(model_folder: Any) -> None:
    program = f"""
from PIL import Image
from dexar_fast import Explainer
stream = Explainer.from_pretrained({str(model_folder)!r}).stream(Image.new("RGB", (64, 64)), "what", chunk_size=1)
print(len(next(stream)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
