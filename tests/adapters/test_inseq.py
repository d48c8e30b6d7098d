"""Inseq's own classes around our numbers: what it shows, saves and aggregates; the sums of a model of text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import small_llava
import torch
import types_oracle
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from dexar_fast import Explainer, InputError
from dexar_fast.adapters.inseq import OF_TEXT, UNKNOWN, attribute, attribution_output

inseq = pytest.importorskip("inseq")

TOKENIZER = small_llava.byte_level()
PROMPT, ANSWER = "Describe the image.", " the cat is on it"
INPUT, GENERATED = "the cat is", "the cat is on the mat"


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(small_llava.model(TOKENIZER), small_llava.processor(TOKENIZER), text_relevance=True)


@pytest.fixture(scope="module")
def text_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=TOKENIZER.bos_token_id,
        eos_token_id=TOKENIZER.eos_token_id,
        pad_token_id=TOKENIZER.pad_token_id,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).double().eval()


def slow(model: LlamaForCausalLM, ids: list[int], start: int) -> Tensor:
    """Sum over layers and heads of relu(d lens / d attention), one autograd.grad a token and layer; NaN if not read."""
    length = len(ids)
    with types_oracle.eager(model) as calls, types_oracle.kept_outputs(model) as outputs:
        model(torch.tensor([ids[:-1]]), use_cache=False)
    found = torch.full((length, length - start), torch.nan, dtype=torch.float64)
    found[: length - 1] = torch.where(torch.arange(length - 1)[:, None] < torch.arange(start, length), 0.0, torch.nan)
    for layer, (_, attention, _) in zip(model.model.layers, calls, strict=True):
        for n, token in enumerate(ids[start:]):
            row = model.lm_head(model.model.norm(outputs[layer][0, start - 1 + n]))
            gradient = torch.autograd.grad(row[token], attention, retain_graph=True)[0][0, :, start - 1 + n]
            found[: length - 1, n] += gradient.relu().sum(0)
    return found


def same_as_stored(found: Any, folder: Path) -> None:
    """Inseq writes it, reads it, and finds it the same."""
    found.save(folder / "found.json")
    read = inseq.FeatureAttributionOutput.load(folder / "found.json")
    assert read.info == found.info
    for name in ("source_attributions", "target_attributions"):
        ours, theirs = getattr(found[0], name), getattr(read[0], name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours.float(), theirs.float(), equal_nan=True)


def test_an_explanation_as_inseq_holds_it(explainer: Explainer, tmp_path: Path) -> None:
    explanation = explainer.explain(small_llava.noise(), PROMPT, ANSWER)
    found = attribution_output(explanation)
    (one,) = found
    relevance, length = explanation.text_relevance, len(explanation)
    assert relevance is not None and length == 5
    torch.testing.assert_close(one.source_attributions, explanation.token_maps.T)
    assert len(one.source) == 16 and one.source[5].token == "image 0, row 1, column 1"
    before = one.attr_pos_start
    assert before == int((relevance.positions < explanation.metadata["prompt_tokens"]).sum()) == len(one.target) - 5
    assert [each.token for each in one.target[before:]] == explanation.tokens
    assert [each.id for each in one.target[before:]] == explanation.token_ids.tolist()
    assert {each.id for each in one.target[:before]} == {UNKNOWN}
    torch.testing.assert_close(one.target_attributions[:before], relevance.maps[:, :before].T)
    for token in range(length):
        earlier = one.target_attributions[before:, token]
        assert earlier[:token].isfinite().all() and earlier[token:].isnan().all()
        torch.testing.assert_close(earlier[:token], relevance.maps[token, before : before + token])
    torch.testing.assert_close(one.step_scores["token_weight"], explanation.token_weights)
    assert found.info["attribution_method"] == "dex-ar" and found.info["generated_texts"] == [ANSWER]
    html = found.show(display=False, return_html=True)
    assert html.count("image 0, row") >= 16
    scores = found.get_scores_dicts()[0]["source_attributions"]
    assert len(scores) == 5 and all(len(row) == 16 for row in scores.values())
    same_as_stored(found, tmp_path)


def test_inseqs_aggregators_take_it(explainer: Explainer) -> None:
    """A span of answer tokens merged, as for its own methods: the largest of its scores."""
    explanation = explainer.explain(small_llava.noise(), PROMPT, ANSWER)
    found = attribution_output(explanation)
    start = found[0].attr_pos_start
    merged = found.aggregate("spans", target_spans=[(start + 1, start + 3)])[0]
    assert merged.source_attributions.shape == (16, 4)
    expected = explanation.token_maps[1:3].amax(0)
    torch.testing.assert_close(merged.source_attributions[:, 1], expected)


def test_without_text_relevance_the_source_is_all(tmp_path: Path) -> None:
    explainer = Explainer(small_llava.model(TOKENIZER), small_llava.processor(TOKENIZER), method="attention")
    found = attribution_output(explainer.explain(small_llava.noise(), PROMPT, ANSWER))
    assert found[0].target_attributions is None and found[0].attr_pos_start == 0 and len(found[0].target) == 5
    assert found.info["attribution_method"] == "attention" and found[0].step_scores == {}
    assert found.show(display=False, return_html=True)
    same_as_stored(found, tmp_path)


def test_a_model_of_text_alone(text_model: LlamaForCausalLM, tmp_path: Path) -> None:
    """The layout of Inseq's own, the sums of plain autograd in float64; the same again once the decoder is known."""
    ids, start = TOKENIZER(GENERATED).input_ids, len(TOKENIZER(INPUT).input_ids)
    expected = slow(text_model, ids, start)
    theirs = inseq.load_model(text_model, "saliency", tokenizer=TOKENIZER).attribute(
        INPUT, GENERATED, show_progress=False
    )
    for _ in range(2):
        found = attribute(text_model, TOKENIZER, INPUT, GENERATED)
        torch.testing.assert_close(found[0].target_attributions, expected, equal_nan=True)
    assert float(expected.nan_to_num().max()) > 0
    ours, its = found[0], theirs.aggregate()[0]
    assert torch.equal(ours.target_attributions.isnan(), its.target_attributions.isnan())
    assert (ours.source, ours.target) == (its.source, its.target)
    assert (ours.attr_pos_start, ours.attr_pos_end) == (its.attr_pos_start, its.attr_pos_end)
    assert found.info["attribution_method"] == OF_TEXT and "unfiltered sum over text keys" in OF_TEXT
    assert {name: found.info[name] for name in ("input_texts", "generated_texts")} == {
        "input_texts": [INPUT],
        "generated_texts": [GENERATED],
    }
    assert found.show(display=False, return_html=True)
    assert found.aggregate()[0].target_attributions.shape == expected.shape
    same_as_stored(found, tmp_path)


def test_several_texts_and_one_that_the_model_writes(text_model: LlamaForCausalLM) -> None:
    found = attribute(text_model, TOKENIZER, [INPUT, "a dog"], [GENERATED, "a dog on it"])
    assert len(found) == 2 and found.info["constrained_decoding"]
    alone = attribute(text_model, TOKENIZER, "a dog", "a dog on it")
    torch.testing.assert_close(found[1].target_attributions, alone[0].target_attributions, equal_nan=True)
    own = attribute(text_model, TOKENIZER, "a dog", generation_args={"max_new_tokens": 3, "do_sample": False})
    written = text_model.generate(torch.tensor([TOKENIZER("a dog").input_ids]), max_new_tokens=3, do_sample=False)
    assert [each.id for each in own[0].target] == written[0].tolist() and not own.info["constrained_decoding"]


def test_a_token_across_the_end_of_the_input(text_model: LlamaForCausalLM) -> None:
    """Inseq counts the input's tokens and cuts the whole text there; so does this."""
    before, whole = TOKENIZER("a im").input_ids, TOKENIZER("a image").input_ids
    assert whole[: len(before)] != before and len(whole) < len(before) + 1
    found = attribute(text_model, TOKENIZER, "a im", "a image on it")
    ids = TOKENIZER("a image on it").input_ids
    assert [each.id for each in found[0].target] == ids
    expected = slow(text_model, ids, len(before))
    torch.testing.assert_close(found[0].target_attributions, expected, equal_nan=True)


def test_what_is_refused(text_model: LlamaForCausalLM) -> None:
    for inputs, generated, words in (
        (["a", "the"], "a cat", "1 generated texts for 2 input texts"),
        ([], None, "input_texts is empty"),
        ("a cat", "a dog", "does not begin with its input text 'a cat'"),
        ("a cat", "a cat", "no token behind the"),
    ):
        with pytest.raises(InputError, match=words):
            attribute(text_model, TOKENIZER, inputs, generated)
