"""What vLLM and SGLang return is taken as an answer: plain objects with the fields of the released classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import small_llava
import torch
from alike import assert_same

from dexar_fast import Explainer, InputError

PROMPT = "Describe the image."
TOKENIZER = small_llava.byte_level()
MODEL = small_llava.model(TOKENIZER)
PICTURE = small_llava.noise()
SAID = " the cat is on it"
SPLIT = [*TOKENIZER(" the c", add_special_tokens=False).input_ids, *TOKENIZER("at", add_special_tokens=False).input_ids]


@dataclass
class CompletionOutput:
    """The fields of vLLM 0.33's, in their order."""

    index: int
    text: str
    token_ids: Any
    cumulative_logprob: float | None = None
    logprobs: Any = None
    routed_experts: Any = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: Any = None
    sampling_mask: Any = None
    spec_decode_metrics: Any = None
    weight_versions: Any = None


@dataclass
class RequestOutput:
    """The fields of vLLM 0.33's."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    outputs: list[CompletionOutput]
    prompt_logprobs: Any = None
    finished: bool = True
    metrics: Any = None
    lora_request: Any = None


def vllm(ids: Any, text: str = SAID, **more: Any) -> RequestOutput:
    return RequestOutput("0", PROMPT, [1, 2, 3], [CompletionOutput(0, text, ids, finish_reason="stop", **more)])


def sglang(ids: list[int], text: str | None = SAID) -> dict[str, Any]:
    """What SGLang 0.5.23's Engine.generate and its /generate return."""
    told = {"id": "0", "finish_reason": {"type": "stop", "matched": 1}, "prompt_tokens": 30, "completion_tokens": 6}
    return {"text": text, "output_ids": ids, "meta_info": told}


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False).input_ids


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(MODEL, small_llava.processor(TOKENIZER))


@pytest.mark.parametrize("end", [[], [TOKENIZER.eos_token_id]])
def test_their_results_are_answers(explainer: Explainer, end: list[int]) -> None:
    expected = explainer.explain(PICTURE, PROMPT, SAID)
    ids = [*ids_of(SAID), *end]
    results = [vllm(ids), vllm(tuple(ids)), vllm(ids).outputs[0], sglang(ids), sglang(ids, None)]
    for found in explainer.explain_batch([(PICTURE, PROMPT, each) for each in results]):
        assert_same(found, expected)
    assert_same(explainer.explain(PICTURE, PROMPT, results[0]), expected)
    inputs = explainer.processor(images=PICTURE, text=expected.metadata["prompt"], return_tensors="pt")
    assert_same(explainer.explain_inputs(inputs, results[3], images=PICTURE), expected)


def test_the_ids_are_taken_as_they_are(explainer: Explainer) -> None:
    """Of a text that the tokenizer would cut otherwise: what was written is what is explained."""
    assert ids_of(" the cat") != SPLIT
    for result in (vllm(SPLIT, " the cat"), sglang(SPLIT, " the cat")):
        assert explainer.explain(PICTURE, PROMPT, result).token_ids.tolist() == SPLIT


def test_a_text_that_a_stop_string_cut_is_still_of_these_ids(explainer: Explainer) -> None:
    ids = ids_of(SAID)
    for text in (" the cat is", "the cat is on it", "", " the cat is on\ufffd"):
        assert explainer.explain(PICTURE, PROMPT, vllm(ids, text)).token_ids.tolist() == ids
    special = [*ids_of(" the"), TOKENIZER.pad_token_id]
    assert explainer.explain(PICTURE, PROMPT, vllm(special, " the<pad>")).token_ids.tolist() == special


def test_ids_of_another_tokenizer_are_refused(explainer: Explainer) -> None:
    beyond = len(TOKENIZER)
    with pytest.raises(InputError, match=f"holds id {beyond}, and this tokenizer has {beyond}"):
        explainer.explain(PICTURE, PROMPT, vllm([5, beyond]))
    with pytest.raises(InputError, match="its ids read ' the cat' here: another tokenizer's"):
        explainer.explain(PICTURE, PROMPT, sglang(ids_of(" the cat"), "A yellow circle."))
    alone = Explainer(MODEL)  # without a tokenizer the model's own table is the limit
    inputs = explainer.processor(images=PICTURE, text=f"{small_llava.IMAGE} it", return_tensors="pt")
    with pytest.raises(InputError, match="target_ids must lie in the vocabulary"):
        alone.explain_inputs(inputs, vllm([5, beyond]))


def test_what_is_refused(explainer: Explainer) -> None:
    two = vllm(ids_of(SAID))
    two.outputs.append(CompletionOutput(1, " it", ids_of(" it")))
    with pytest.raises(InputError, match="the request has 2 outputs: pass the one that is to be explained"):
        explainer.explain(PICTURE, PROMPT, two)
    with pytest.raises(InputError, match='SGLang holds no "output_ids"'):
        explainer.explain(PICTURE, PROMPT, {"text": "the cat", "meta_info": {}})
    with pytest.raises(InputError, match="empty: it holds no token"):
        explainer.explain(PICTURE, PROMPT, vllm([], ""))
    for other in ([vllm(ids_of(SAID))], {"text": "the cat"}, torch.tensor([5, 6])):
        with pytest.raises(InputError, match="the answer must be a text, not a"):
            explainer.explain(PICTURE, PROMPT, other)
    with pytest.raises(InputError, match=r"ids of the answer must be \[S\] integers, not torch.float32 \[2\]"):
        explainer.explain(PICTURE, PROMPT, vllm([0.5, 1.5]))
