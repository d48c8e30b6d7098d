"""Streams give the explanation that explain() gives, and leave generation as it is."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import small_llava
import torch
import zoo
from alike import assert_same
from PIL import Image
from streams import GREEDY, PROMPT, TOKENS, Forced, Streamer, image, llava, nothing_left, state  # noqa: F401
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
)

from dexar_fast import Explainer, Explanation, InputError
from dexar_fast.generation import stream as stream_module
from dexar_fast.kvcache.pool import KVPool

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
TWO_ANSWERS = GenerationConfig(num_return_sequences=2, do_sample=True)


class Seen(LogitsProcessor):
    """The logits of every step, bit for bit."""

    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.logits.append(scores.clone())
        return scores


def counts(explanation: Explanation) -> dict[str, Any]:
    """The diagnostics but which key wins: at layer 0 a token that comes twice has the same value twice, a tie."""
    return {name: value for name, value in explanation.diagnostics.items() if name != "text_winners"}


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


def test_a_reader_lets_its_workers_go_while_it_waits(
    llava: Explainer, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time: what it does with a piece may make new ones."""
    rested: list[int] = []
    monkeypatch.setattr(stream_module, "rest_threads", lambda: rested.append(threading.get_ident()))
    pieces = list(llava.stream(image, PROMPT, chunk_size=2, max_new_tokens=6, do_sample=False))
    assert rested == [threading.get_ident()] * (len(pieces) + 1)


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


def test_stop_strings_need_no_tokenizer_beside_them(llava: Explainer, image: Image.Image) -> None:
    ids = llava.processor.tokenizer("the cat is on the mat", add_special_tokens=False).input_ids
    found = []
    for ask in (llava.explain, llava.stream):
        options = {"logits_processor": LogitsProcessorList([Forced(ids)]), "max_new_tokens": len(ids)}
        answer = ask(image, PROMPT, stop_strings=["is"], **options)
        found.append("".join(answer.tokens if isinstance(answer, Explanation) else [x.text for x in answer]))
    assert found == ["the cat is", "the cat is"]


@pytest.mark.parametrize("config", [{"num_return_sequences": 2}, {"generation_config": TWO_ANSWERS}])
def test_of_several_answers_none_is_picked(llava: Explainer, image: Image.Image, config: dict[str, Any]) -> None:
    for ask in (llava.explain, llava.stream):
        with pytest.raises(InputError, match="one answer is explained at a time"):
            ask(image, PROMPT, do_sample=True, max_new_tokens=3, **config)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_return_sequences": 2, "do_sample": True},
        {"generation_config": GenerationConfig(num_beams=2)},
    ],
)
def test_several_answers_at_once_are_refused(llava: Explainer, image: Image.Image, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"pass num_beams=1|pass num_return_sequences=1"):
        llava.stream(image, PROMPT, **options)


@pytest.mark.parametrize("options", [{"chunk_size": 0}, {"max_new_tokens": 10**6}, {"generation_config": {}}])
def test_bad_arguments_are_refused_at_once(
    llava: Explainer, image: Image.Image, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        llava.stream(image, PROMPT, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
