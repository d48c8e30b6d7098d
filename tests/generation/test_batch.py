"""A batch gives what each of its requests gives alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import small_llava
import torch
import zoo
from batches import ALL, ANSWERS, KNOBS, assert_equal, batched, prompts

from dexar_fast import Explainer, Explanation
from dexar_fast.attribution.calls.rows import Rows
from dexar_fast.errors import DexarError, ImageError, InputError, ModelError, NumericalError
from dexar_fast.generation.batch import explaining
from dexar_fast.generation.batch.running import Batch
from dexar_fast.generation.generate import EmptyAnswer
from dexar_fast.model.attention import Call

GREEDY = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture(scope="module")
def small() -> Explainer:
    processor = small_llava.processor()
    return Explainer(small_llava.model(processor.tokenizer), processor)


@pytest.mark.parametrize("family", ALL)
def test_answers_that_are_written(family: str) -> None:
    model, inputs = zoo.build(family)
    explainer, several = Explainer(model), prompts(inputs)
    expected = [explainer.explain_inputs(each, **GREEDY) for each in several]
    found = batched(explainer, several, **GREEDY)
    assert_equal(found, expected, 1e-9)
    assert [each.metadata["batch"] for each in found] == [3, 3, 3]


@pytest.mark.parametrize("family", ALL)
def test_answers_that_are_given(family: str) -> None:
    """Each over the batch's keys."""
    model, inputs = zoo.build(family)
    explainer, several = Explainer(model), prompts(inputs)
    pairs = zip(several, ANSWERS, strict=True)
    expected = [explainer.explain_inputs(each, answer) for each, answer in pairs]
    found = batched(explainer, several, ANSWERS)
    assert_equal(found, expected, 1e-9)
    assert [each.metadata["batch"] for each in found] == [3, 3, 3]


def ending(answers: list[list[int]]) -> tuple[list[int], list[int]]:
    """Ids that end one answer at once and another early, and the lengths of the answers then."""
    for pair in itertools.combinations({token for answer in answers for token in answer}, 2):
        lengths = [next((n for n, token in enumerate(answer) if token in pair), len(answer)) for answer in answers]
        if 0 in lengths and len(set(lengths)) == len(lengths):
            return list(pair), lengths
    raise AssertionError("no such ids")


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3", "internvl"])
def test_answers_that_end_at_different_steps(family: str) -> None:
    """One of them at once. Nothing behind an answer's end counts."""
    model, inputs = zoo.build(family)
    explainer, several = Explainer(model, chunk_size=6), prompts(inputs)  # chunks of two tokens of each row
    ends, lengths = ending([explainer.explain_inputs(each, **GREEDY).token_ids.tolist() for each in several])
    for one, prompt, length in zip(
        batched(explainer, several, eos_token_id=ends, **GREEDY), several, lengths, strict=True
    ):
        if length:
            assert_equal([one], [explainer.explain_inputs(prompt, eos_token_id=ends, **GREEDY)], 1e-9)
            assert len(one) == length
        else:
            assert isinstance(one, EmptyAnswer)


@pytest.mark.parametrize("chunk", [1, 5, 9])
def test_chunks(chunk: int) -> None:
    model, inputs = zoo.build("bakllava")
    several = prompts(inputs)
    expected = [Explainer(model).explain_inputs(each, **GREEDY) for each in several]
    assert_equal(batched(Explainer(model, chunk_size=chunk), several, **GREEDY), expected, 1e-9)


def test_a_bad_item_costs_itself(small: Explainer) -> None:
    """Its place holds what explain() raises; the others are explained, in order."""
    picture, other = small_llava.noise(), small_llava.noise(48)
    asked = [
        (picture, "Describe the cat"),
        ("/no/such.png", "a"),
        (other, "the dog"),
        (picture, ""),
        (picture, "a", " "),
    ]
    found = small.explain_batch(asked, **GREEDY)
    assert [type(each) for each in found] == [Explanation, ImageError, Explanation, InputError, InputError]
    expected = [small.explain(*asked[n], **GREEDY) for n in (0, 2)]
    assert_equal([found[0], found[2]], expected, 1e-5)


class Unreadable:
    """An image whose own code fails."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise OSError("the disk is gone")


def test_an_image_whose_code_fails_costs_itself(small: Explainer) -> None:
    asked = [(small_llava.noise(), "the cat"), (Unreadable(), "a dog"), (small_llava.noise(48), "the dog")]
    found = small.explain_batch(asked, **GREEDY)
    with pytest.raises(DexarError) as alone:
        small.explain(*asked[1], **GREEDY)
    assert (type(found[1]), str(found[1])) == (type(alone.value), str(alone.value))
    assert_equal([found[0], found[2]], [small.explain(*asked[n], **GREEDY) for n in (0, 2)], 1e-5)


def test_windows_keep_the_order(small: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests than are read at a time, a bad one among them."""
    monkeypatch.setattr(explaining, "WINDOW", 3)
    asked: list[Any] = [(small_llava.noise(), "the cat" * (n % 3 + 1)) for n in range(7)]
    expected = [small.explain(*each, **GREEDY) for each in asked]
    asked[4:4] = [("/no/such.png", "a")]
    found = small.explain_batch(asked, **GREEDY)
    assert isinstance(found.pop(4), ImageError)
    assert_equal(found, expected, 1e-5)


def test_what_is_finished_is_handed_out_before_the_next_batch(
    small: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an interruption, or an error of the caller's own iterator, takes nothing that was finished."""
    monkeypatch.setattr(explaining, "WINDOW", 4)
    asked: list[Any] = [(small_llava.noise(side), "the cat") for side in (64, 48, 32, 56)]
    small.explain(*asked[0], **GREEDY)  # the decoder is found
    expected = [small.explain(*each, **GREEDY) for each in asked]

    def broken() -> Iterator[Any]:
        yield from asked
        raise OSError("the disk is gone")

    found = dict[int, Any]()
    with pytest.raises(OSError, match="the disk is gone"):
        for n, each in small.explain_as_completed(broken(), 2, **GREEDY):
            found[n] = each
    assert_equal([found[n] for n in range(4)], expected, 1e-5)

    batches, answered = [], Batch._answered

    def interrupted(self: Batch, inputs: Any) -> Any:
        batches.append(len(inputs["input_ids"]))
        if len(batches) == 2:
            raise KeyboardInterrupt
        return answered(self, inputs)

    monkeypatch.setattr(Batch, "_answered", interrupted)
    found.clear()
    with pytest.raises(KeyboardInterrupt):
        for n, each in small.explain_as_completed(asked, 2, **GREEDY):
            found[n] = each
    assert batches == [2, 2] and len(found) == 2
    assert_equal(list(found.values()), [expected[n] for n in found], 1e-5)


def test_requests_without_an_end(small: Explainer) -> None:
    endless = ((small_llava.noise(), "the cat" * (1 + n % 3)) for n in itertools.count())
    found = list(itertools.islice(small.explain_as_completed(endless, 4, **GREEDY), 70))
    assert sorted(n for n, _ in found[:64]) == list(range(64))
    with pytest.raises(InputError, match="requests must be a list"):
        small.explain_as_completed("the cat")


def test_what_was_read_is_explained_before_the_reader_fails(small: Explainer) -> None:
    asked = [(small_llava.noise(side), "the cat") for side in (64, 48)]

    def reading() -> Iterator[Any]:
        yield from asked
        raise OSError("the disk is gone")

    found, completed = {}, small.explain_as_completed(reading(), **GREEDY)
    with pytest.raises(OSError, match="the disk is gone"):
        for number, each in completed:
            found[number] = each
    assert_equal([found[n] for n in range(2)], [small.explain(*each, **GREEDY) for each in asked], 1e-5)


def test_given_and_written_answers_in_one_call(small: Explainer) -> None:
    pictures = [small_llava.noise(side) for side in (64, 48, 32)]
    asked = [(pictures[n % 3], "Describe it" + " the cat" * n, *([] if n % 2 else ["the red dog"])) for n in range(7)]
    expected = [small.explain(*each, **GREEDY) for each in asked]
    for size in (None, 1, 2, 3):
        assert_equal(small.explain_batch(asked, size, **GREEDY), expected, 1e-5)


def test_what_fails_in_a_batch_runs_by_itself(small: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request that fails takes no other with it, and none is lost."""
    asked = [(small_llava.noise(side), "the cat") for side in (64, 48, 32, 56)]
    expected = [small.explain(*each, **GREEDY) for each in asked]

    def failing(*_: Any) -> Any:
        raise ModelError("one of them")

    monkeypatch.setattr(Batch, "_answered", failing)
    found = small.explain_batch(asked, **GREEDY)
    assert_equal(found, expected, 0)
    assert all(
        "explained by itself, as the batch that held it failed: one of them" in each.diagnostics["warnings"][-1]
        for each in found
    )


def test_a_picture_of_nan_costs_itself() -> None:
    model, inputs = zoo.build("llava")
    explainer, several = Explainer(model), prompts(inputs)
    expected = [explainer.explain_inputs(each, answer) for each, answer in zip(several, ANSWERS, strict=True)]
    several[1]["pixel_values"].fill_(torch.nan)
    found = batched(explainer, several, ANSWERS)
    assert isinstance(found[1], NumericalError)
    assert_equal([found[0], found[2]], [expected[0], expected[2]], 1e-9)
    assert "the batch that held it failed: NaN" in found[0].diagnostics["warnings"][0]


def test_a_batch_that_does_not_fit_is_halved(small: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(small_llava.noise(side), "the cat") for side in (64, 48, 32, 56, 40)]
    expected = [small.explain(*each, **GREEDY) for each in asked]
    answered = Batch._answered

    def fitting(self: Batch, inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return answered(self, inputs)

    monkeypatch.setattr(Batch, "_answered", fitting)
    found = small.explain_batch(asked, **GREEDY)
    assert_equal(found, expected, 1e-5)
    assert [each.metadata.get("batch") for each in found if isinstance(each, Explanation)] == [2, 2, None, 2, 2]


def test_a_model_that_mixes_the_rows_of_a_batch_runs_one_by_one() -> None:
    """It is found by its numbers, and said."""
    model, inputs = zoo.build("llava")
    several = prompts(inputs)
    expected = [Explainer(model).explain_inputs(each, **GREEDY) for each in several]

    def mix(module: Any, args: Any, output: Any) -> Any:
        return output + 0.1 * (output - output.mean(0, keepdim=True))

    hook = model.model.language_model.layers[0].mlp.register_forward_hook(mix)
    found = batched(Explainer(model), several, **GREEDY)
    hook.remove()
    assert_equal(found, expected, 1e-9)
    assert all("differ" in each.diagnostics["warnings"][0] for each in found[1:])


@pytest.mark.parametrize(
    "more",
    [
        {"num_beams": 2},
        {"min_length": 40},
        {"no_repeat_ngram_size": 2},
        {"encoder_no_repeat_ngram_size": 2},
        {"logits_processor": [lambda ids, scores: scores]},
        {"max_length": 34, "max_new_tokens": None, "forced_eos_token_id": 1},
    ],
    ids=lambda more: next(iter(more)),
)
def test_arguments_for_one_answer(small: Explainer, more: dict[str, Any]) -> None:
    asked = [(small_llava.noise(side), "the cat" * n) for side, n in ((64, 1), (48, 2))]
    expected = [small.explain(*each, **GREEDY | more) for each in asked]
    assert_equal(small.explain_batch(asked, **GREEDY | more), expected, 0)


def test_an_answer_ends_at_its_own_stop_string(small: Explainer) -> None:
    """generate() pads it until the others have ended."""
    asked = [(small_llava.noise(), "the cat" * n) for n in (1, 2, 3)]
    expected = [small.explain(*each, stop_strings=["K", "mat"], **GREEDY) for each in asked]
    assert [len(each) for each in expected] == [3, 1, 6]
    assert_equal(small.explain_batch(asked, stop_strings=["K", "mat"], **GREEDY), expected, 0)


@pytest.mark.parametrize(
    "more",
    [{"pixel_values": torch.zeros(2, 3, 16, 16)}, {"cache_implementation": "quantized"}],
    ids=lambda more: next(iter(more)),
)
def test_arguments_that_one_request_refuses(small: Explainer, more: dict[str, Any]) -> None:
    asked = [(small_llava.noise(), "the cat" * n) for n in (1, 2)]
    small.explain(*asked[0], "a dog")  # finds the decoder: the next requests run in a batch
    found = small.explain_batch(asked, **GREEDY, **more)
    with pytest.raises(InputError) as refused:
        small.explain(*asked[0], **GREEDY, **more)
    assert [(type(each), str(each)) for each in found] == 2 * [(InputError, str(refused.value))]


def test_a_penalty_of_the_ids_in_a_prompt_does_not_see_the_padding(small: Explainer) -> None:
    asked = [(small_llava.noise(), "the cat" * n) for n in (1, 4, 9)]
    expected = [small.explain(*each, repetition_penalty=1.6, **GREEDY) for each in asked]
    assert_equal(small.explain_batch(asked, repetition_penalty=1.6, **GREEDY), expected, 1e-5)


def test_an_answer_keeps_to_the_limit_of_its_own_prompt(small: Explainer) -> None:
    """max_length counts the prompt, not the padding."""
    asked = [(small_llava.noise(), "the cat" * n) for n in (1, 2, 3)]
    limit = 48
    expected = [small.explain(*each, max_length=limit, do_sample=False) for each in asked]
    assert len({len(each) for each in expected}) == 3
    assert_equal(small.explain_batch(asked, max_length=limit, do_sample=False), expected, 1e-5)


def test_other_methods_and_bad_requests(small: Explainer) -> None:
    asked = [(small_llava.noise(), "the cat", "a dog"), (small_llava.noise(), "a dog", "the cat")]
    raw = small.with_method("attention")
    for one, each in zip(raw.explain_batch(asked), asked, strict=True):
        torch.testing.assert_close(one.token_maps, raw.explain(*each).token_maps, rtol=0, atol=0)
    assert small.explain_batch([]) == []
    (wrong,) = small.explain_batch(["the cat"])
    assert isinstance(wrong, InputError) and "must be (image, prompt)" in str(wrong)
    (wrong,) = small.explain_batch_inputs([{}])
    assert isinstance(wrong, InputError) and "must be (inputs, target_ids)" in str(wrong)
    with pytest.raises(InputError, match="batch_size"):
        small.explain_batch(asked, 0)
    with pytest.raises(InputError, match="requests must be a list"):
        small.explain_batch("the cat")


@pytest.mark.parametrize("knobs", KNOBS, ids=lambda knobs: "-".join(knobs))
def test_knobs(knobs: dict[str, Any]) -> None:
    model, inputs = zoo.build("internvl", torch.float32)
    explainer, several = Explainer(model, **knobs), prompts(inputs)
    expected = [explainer.explain_inputs(each, **GREEDY) for each in several]
    found = batched(explainer, several, **GREEDY)
    assert_equal(found, expected, 1e-5)
    for one, other in zip(found, expected, strict=True):
        assert one.diagnostics == other.diagnostics  # the keys that win among the text, by their own positions
        if other.text_relevance is not None:
            scale = float(other.text_relevance.maps.max())
            torch.testing.assert_close(one.text_relevance.maps, other.text_relevance.maps, rtol=0, atol=1e-5 * scale)


def test_what_is_in_no_row_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of padding, and those behind an answer's end, are poisoned before they are scored."""
    model, inputs = zoo.build("llava")
    explainer, several = Explainer(model), prompts(inputs)
    expected = [explainer.explain_inputs(each, answer) for each, answer in zip(several, ANSWERS, strict=True)]
    prompt = max(each["input_ids"].shape[1] for each in several)
    # by their lengths with the answers, the longest first, as they stand in the batch
    lengths = sorted(((each["input_ids"].shape[1], len(a)) for each, a in zip(several, ANSWERS, strict=True)), key=sum)
    parts, ran = Rows.parts, []

    def poisoned(self: Rows, module: Any, call: Call, *more: Any) -> Any:
        value = call.value.clone()
        for row, (before, said) in zip(value, reversed(lengths), strict=True):
            row[:, : prompt - before] = torch.nan
            row[:, prompt - 1 + said :] = torch.nan
        ran.append(int(value.isnan().any(-1).sum()))
        return parts(self, module, replace(call, value=value), *more)

    monkeypatch.setattr(Rows, "parts", poisoned)
    assert_equal(batched(explainer, several, ANSWERS), expected, 1e-9)
    assert ran and min(ran) > 0
