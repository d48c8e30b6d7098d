"""Given answers as segments of one row: each is explained as if it were alone."""

from __future__ import annotations

from functools import wraps
from typing import Any

import oracle
import pytest
import torch
import zoo
from alike import assert_same
from batches import ALL, ANSWERS, KNOBS, alone, assert_equal, batched, prompts, said
from parity_arrays import ARRAYS
from transformers.masking_utils import sliding_window_causal_mask_function

from dexar_fast import Explainer
from dexar_fast.attribution.calls.segments import Segments
from dexar_fast.attribution.tails import trust, values
from dexar_fast.errors import InputError, NumericalError
from dexar_fast.generation.batch import explaining
from dexar_fast.model import attention, memory
from dexar_fast.model.attention import Call

APART = {
    "qwen3_vl_moe": "routes tokens to experts: its layers need autograd",
    "paligemma": "its prompt reads ahead",
    "paligemma2": "likewise",
    "gemma3": "likewise, in its image",
}


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms that sum in float32 in a float64 model keep no tail from agreeing."""
    monkeypatch.setitem(trust.TOLERANCE, torch.float64, 1e-5)
    monkeypatch.setitem(values.EPS, torch.float64, torch.finfo(torch.float32).eps)


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("family", ALL)
def test_every_family(family: str) -> None:
    """In the first row of its kind and in the second; what cannot be packed is padded, and says so."""
    model, inputs = zoo.build(family)
    explainer, several = Explainer(model), prompts(inputs)
    expected = [alone(explainer, several, ANSWERS) for _ in range(2)][1]
    for _ in range(2):
        found = batched(explainer, several, ANSWERS)
        assert_equal(found, expected, 1e-9)
        assert said(found, "batch") == [3, 3, 3]
        assert said(found, "packed") == 3 * [family not in APART]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "internvl", "bakllava"])
def test_single_precision(family: str) -> None:
    model, inputs = zoo.build(family, torch.float32)
    explainer, several = Explainer(model), prompts(inputs)
    expected = alone(explainer, several, ANSWERS)
    found = batched(explainer, several, ANSWERS)
    assert_equal(found, expected, 1e-5)
    assert said(found, "packed") == [True, True, True]


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("family", ["qwen2_5_vl", "bakllava", "llava_two_images"])
def test_it_is_what_the_definitions_say(family: str) -> None:
    """By an oracle that shares nothing with the engine; bakllava's window is shorter than a segment."""
    model, inputs = zoo.build(family)
    explainer, several = Explainer(model), prompts(inputs)
    alone(explainer, several, ANSWERS)
    found = batched(explainer, several, ANSWERS)
    assert said(found, "packed") == [True, True, True]
    for one, prompt, answer in zip(found, several, ANSWERS, strict=True):
        for name, wanted in oracle.oracle(model, prompt, torch.tensor(answer)).items():
            if name in ARRAYS:
                scale = float(wanted.abs().max())
                torch.testing.assert_close(getattr(one, name).double(), wanted, rtol=0, atol=1e-5 * scale)


@pytest.mark.usefixtures("trusting")
def test_prompts_with_several_pictures_beside_others() -> None:
    model, one = zoo.build("qwen2_5_vl")
    _, two = zoo.build("qwen2_5_vl_two_images")
    explainer, several = Explainer(model), [one, two, prompts(one)[1]]
    expected = alone(explainer, several, ANSWERS)
    found = batched(explainer, several, ANSWERS)
    assert_equal(found, expected, 1e-9)
    assert said(found, "packed") == [True, True, True]


@pytest.mark.usefixtures("trusting")
def test_answers_of_one_token() -> None:
    model, inputs = zoo.build("llava")
    explainer, several = Explainer(model), prompts(inputs)
    answers = [[30], [41], [52]]
    expected = alone(explainer, several, answers)
    found = batched(explainer, several, answers)
    assert_equal(found, expected, 1e-9)
    assert said(found, "packed") == [True, True, True]


@pytest.mark.parametrize("knobs", KNOBS, ids=lambda knobs: "-".join(knobs))
def test_knobs(knobs: dict[str, Any]) -> None:
    model, inputs = zoo.build("internvl", torch.float32)
    explainer, several = Explainer(model, **knobs), prompts(inputs)
    answers = [ANSWERS[0], [33, 20], ANSWERS[2]]
    expected = alone(explainer, several, answers)
    found = batched(explainer, several, answers)
    assert said(found, "packed") == [True, True, True]
    assert_equal(found, expected, 1e-5)
    for one, other in zip(found, expected, strict=True):
        assert one.diagnostics == other.diagnostics  # the keys that win among the text, by their own positions
        if other.text_relevance is not None:
            scale = float(other.text_relevance.maps.max())
            torch.testing.assert_close(one.text_relevance.maps, other.text_relevance.maps, rtol=0, atol=1e-5 * scale)


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("family", ["llava", "bakllava"])
def test_segments_do_not_read_each_other(family: str) -> None:
    """Whatever stands beside it, not a bit of a segment changes."""
    model, inputs = zoo.build(family)
    explainer, several = Explainer(model), prompts(inputs)
    alone(explainer, several, ANSWERS)
    first = batched(explainer, several, ANSWERS)[1]
    others = [each | {"pixel_values": 2 - each["pixel_values"]} for each in several]
    second = batched(explainer, [others[0], several[1], others[2]], [[9, 8, 7], ANSWERS[1], [6, 5, 4, 3, 2]])[1]
    assert_same(second, first, 0)


@pytest.mark.usefixtures("trusting")
def test_a_picture_of_nan_costs_itself() -> None:
    model, inputs = zoo.build("llava")
    explainer, several = Explainer(model), prompts(inputs)
    expected = alone(explainer, several, ANSWERS)
    broken = [*several[:1], several[1] | {"pixel_values": several[1]["pixel_values"] * torch.nan}, *several[2:]]
    found = batched(explainer, broken, ANSWERS)
    assert isinstance(found[1], NumericalError)
    assert_equal([found[0], found[2]], [expected[0], expected[2]], 1e-9)
    assert "the batch that held it failed: NaN" in found[0].diagnostics["warnings"][0]
    again = batched(explainer, several, ANSWERS)
    assert_equal(again, expected, 1e-9)
    assert said(again, "packed") == [True, True, True]


def test_an_id_that_the_model_cannot_write_costs_itself() -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explainer, several = Explainer(model), prompts(inputs)
    expected = alone(explainer, several, ANSWERS)
    found = batched(explainer, several, [ANSWERS[0], [10_000], ANSWERS[2]])
    assert isinstance(found[1], InputError)
    assert_equal([found[0], found[2]], [expected[0], expected[2]], 1e-5)


def test_rows_are_as_long_as_the_budget_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 6 requests whose lengths differ; the answers come in order."""
    model, inputs = zoo.build("llava", torch.float32)
    explainer = Explainer(model)
    several, answers = prompts(inputs) * 2, ANSWERS * 2
    expected = alone(explainer, several, answers)
    lengths = sorted((each["input_ids"].shape[1] + len(a) for each, a in zip(several, answers, strict=True)))
    rows = []
    attend = Segments.attend
    monkeypatch.setattr(
        Segments, "attend", lambda self, *given: [rows.append(len(self.slices)), attend(self, *given)][1]
    )
    for budget, sizes in ((sum(lengths), {6}), (sum(lengths) - 1, {5}), (lengths[-1] + lengths[-2], {2})):
        monkeypatch.setattr(explaining, "ROW", budget)
        rows.clear()
        found = batched(explainer, several, answers)
        assert_equal(found, expected, 1e-5)
        assert set(rows) == sizes


@pytest.mark.parametrize(("chunk", "sizes"), [(9, [3, 3, 3]), (8, [2, 2, None]), (4, [3, 3, 3])])
def test_the_answers_of_a_row_are_no_longer_than_a_chunk(chunk: int, sizes: list[Any]) -> None:
    """They have 3, 1 and 5 tokens; the longest prompt comes first. One that is longer by itself is padded."""
    model, inputs = zoo.build("llava", torch.float32)
    several = prompts(inputs)
    explainer = Explainer(model, chunk_size=chunk)
    expected = alone(explainer, several, ANSWERS)
    found = batched(explainer, several, ANSWERS)
    assert_equal(found, expected, 1e-5)
    assert sorted(map(str, said(found, "batch"))) == sorted(map(str, sizes))
    assert said(found, "packed").count(True) == (sizes.count(3) or 2 if chunk > 4 else 0)


def test_a_row_is_no_longer_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explainer, several = Explainer(model), prompts(inputs)
    expected = alone(explainer, several, ANSWERS)
    tokens = several[1]["input_ids"].shape[1] + several[2]["input_ids"].shape[1] + 6  # the longest two, with answers
    monkeypatch.setattr(memory, "BUDGET", memory.BUDGET * tokens // memory.row_budget(model) + 1)
    found = batched(explainer, several, ANSWERS)
    assert_equal(found, expected, 1e-5)
    assert said(found, "batch") == [None, 2, 2]


def test_a_model_whose_segments_read_each_other_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found by its numbers, and said; nothing is lost."""
    model, inputs = zoo.build("llava", torch.float32)
    explainer, several = Explainer(model), prompts(inputs)
    expected = alone(explainer, several, ANSWERS)
    attend = Segments.attend

    def together(self: Segments, module: Any, call: Call, keywords: Any) -> torch.Tensor:
        attend(self, module, call, keywords)
        return attention.attend(module, call, keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Segments, "attend", together)
        found = batched(explainer, several, ANSWERS)
    for each in (found, batched(explainer, several, ANSWERS)):
        assert_equal(each, expected, 1e-5)
        assert said(each, "packed") == [False, False, False]
        assert all(
            any("not packed with other requests: of a prompt" in w for w in x.diagnostics["warnings"]) for x in each
        )


def test_masks_of_segments() -> None:
    """Each has the one that it has alone; where all are causal alone there is none, and otherwise that is noted."""
    segments = Segments([3, 5])
    whole = {"batch_size": 1, "q_length": 8, "kv_length": 8, "q_offset": 0, "kv_offset": 0, "device": "cpu"}
    assert segments.make_mask(whole) is None and not segments.masked
    window = {"mask_function": sliding_window_causal_mask_function(4), "local_size": 4}
    masks = segments.make_mask(whole | window)
    assert segments.masked and masks.own[0] is None
    reads = torch.arange(5)[:, None] - torch.arange(5)
    torch.testing.assert_close(masks.own[3][0, 0], (reads >= 0) & (reads < 4))
    other = segments.make_mask(whole | {"q_length": 2, "kv_length": 4, "q_offset": 2})  # of another sequence
    torch.testing.assert_close(other[0, 0], torch.ones(2, 4, dtype=torch.bool).tril(2))


def test_a_model_that_does_not_take_a_row_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = zoo.build("bakllava", torch.float32)
    explainer, several = Explainer(model), prompts(inputs)
    expected = alone(explainer, several, ANSWERS)
    monkeypatch.setattr(model, "forward", refusing(model.forward))
    found = batched(explainer, several, ANSWERS)
    assert_equal(found, expected, 1e-5)
    assert said(found, "packed") == [False, False, False]
    assert all(
        any("not packed with other requests: no positions" in w for w in x.diagnostics["warnings"]) for x in found
    )


def refusing(forward: Any) -> Any:
    @wraps(forward)
    def refuse(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        if position_ids is not None and kwargs.get("use_cache") is False:
            raise TypeError("no positions, please")
        return forward(*args, position_ids=position_ids, **kwargs)

    return refuse
