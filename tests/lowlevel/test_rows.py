"""Rows of attention against whole matrices of eager attention in float64."""

from __future__ import annotations

from typing import Any

import calls_oracle
import numpy as np
import oracle
import pytest
import torch
import types_beyond
import types_cases
import types_oracle
import zoo
from engine_cases import SquareTensors, long_prompt, state
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from dexar_fast.errors import InputError, ModelError, NumericalError, OutOfMemoryError
from dexar_fast.lowlevel import attention_rows, rows
from dexar_fast.model.attention import NAME

ANSWER = torch.tensor([20, 31, 44, 17, 25])
CHOSEN = [-1, 3, 0, -4, 3]  # in any order, one of them twice
LANGUAGE: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "gemma2": {"sliding_window": 7, "attn_logit_softcapping": 3.0},
    "mistral": {"sliding_window": 5},
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 64},
}


def whole(model: Any, inputs: zoo.Inputs) -> list[Tensor]:
    """A of every layer, [H, S, S]."""
    wanted = {name: value for name, value in inputs.items() if name != "labels"}
    return [attention[0].detach() for attention in oracle.record(model, wanted).attention]


def assert_rows(found: dict[int, Tensor], wanted: list[Tensor], chosen: list[int], bound: float = 1e-12) -> None:
    assert list(found) == list(range(len(wanted)))
    for layer, attention in enumerate(wanted):
        assert found[layer].shape == (len(attention), len(chosen), attention.shape[-1])
        assert float((found[layer].double() - attention[:, chosen]).abs().max()) <= bound


@pytest.mark.parametrize("family", [*zoo.FAMILIES, *zoo.VARIANTS])
def test_rows_of_a_prompt_are_those_of_whole_matrices(family: str) -> None:
    """Windows, soft caps, grouped heads, M-RoPE, prompts that read ahead, experts."""
    model, inputs = zoo.build(family)
    found = attention_rows(model, inputs, CHOSEN)
    assert found[0].dtype == torch.float64
    assert_rows(found, whole(model, inputs), CHOSEN)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "paligemma2", "gemma3", "aya_vision"])
def test_an_answer_may_stand_behind_the_prompt(family: str) -> None:
    model, inputs = zoo.build(family)
    full = oracle.full_sequence(model, inputs, ANSWER)
    first = inputs["input_ids"].shape[1] - 1
    assert_rows(attention_rows(model, full, range(first, first + 5)), whole(model, full), [*range(first, first + 5)])


@pytest.mark.parametrize("name", LANGUAGE)
def test_models_of_text_alone(name: str) -> None:
    """Beside transformers' own, whose softmax is in float32."""
    config = AutoConfig.for_model(name, **(zoo.TEXT | LANGUAGE[name]))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()
    inputs = {"input_ids": torch.arange(10, 33)[None]}
    found = attention_rows(model, inputs, CHOSEN)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        wanted = model(**inputs, output_attentions=True).attentions
    assert_rows(found, [attention[0].double() for attention in wanted], CHOSEN, 1e-6)
    with types_oracle.eager(model) as calls, torch.no_grad():
        model(**inputs, use_cache=False)
    assert_rows(found, [attention[0] for _, attention, _ in calls], CHOSEN)


def test_a_prompt_without_an_image() -> None:
    model, inputs = zoo.build("llava")
    text = {"input_ids": inputs["input_ids"][:, :6]}
    assert_rows(attention_rows(model, text, [5, 0]), whole(model, text), [5, 0])


@pytest.mark.parametrize("name", ["qwen3_5", "lfm2_vl", "gemma3n", "minimax_m3_vl", "step3p7", "granite4_vision"])
def test_decoders_of_several_kinds_of_layers(name: str) -> None:
    """Recurrent layers have no rows; sparse ones have 0 for keys that they did not choose."""
    case = types_cases.case(name)
    found = attention_rows(case.model, case.inputs, CHOSEN)
    with types_oracle.eager(case.model) as calls, torch.no_grad():
        types_oracle.forward(case.model, dict(case.inputs))
    length = case.inputs["input_ids"].shape[1]
    wanted = [attention[0] for _, attention, _ in calls if attention.shape[-2] == length]
    assert_rows(found, wanted, CHOSEN, 1e-5)  # some compute in float32 themselves


BY_HAND = {"blip", "git", "git/video", "vision-encoder-decoder/trocr"}  # they are refused


@pytest.mark.parametrize("name", [name for name in types_beyond.BEYOND if name not in BY_HAND])
def test_cross_attention_has_the_keys_that_it_reads(name: str) -> None:
    beyond = types_beyond.BEYOND[name]()
    calls, _, _ = calls_oracle.record(beyond, ANSWER)
    found = attention_rows(beyond.model, beyond.answered(ANSWER), CHOSEN)
    assert_rows(found, [call.attention.detach().flatten(0, -3) for call in calls], CHOSEN)


def test_a_sink_takes_its_part_and_has_no_column() -> None:
    case = types_cases.case("inkling2")
    found = attention_rows(case.model, case.inputs, [-1])
    assert {layer.shape[-1] for layer in found.values()} == {case.inputs["input_ids"].shape[1]}
    assert max(float(layer.sum(-1).max()) for layer in found.values()) < 1


@pytest.mark.parametrize(
    ("layers", "kept"), [(None, [0, 1, 2]), ([0], [0]), ([-1, 0], [0, 2]), ((2, -1), [2]), (np.array([1]), [1])]
)
def test_chosen_layers(layers: Any, kept: list[int]) -> None:
    model, inputs = zoo.build("llava")
    found, every = attention_rows(model, inputs, [-1], layers), attention_rows(model, inputs, [-1])
    assert list(found) == kept
    assert all(torch.equal(found[layer], every[layer]) for layer in kept)


@pytest.mark.parametrize("chosen", [torch.tensor([1, -2]), np.array([1, -2]), (1, -2)], ids=lambda x: type(x).__name__)
def test_rows_come_in_many_forms(chosen: Any) -> None:
    model, inputs = zoo.build("llava")
    assert_rows(attention_rows(model, inputs, chosen), whole(model, inputs), [1, -2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_give_float32(dtype: torch.dtype) -> None:
    model, inputs = zoo.build("llava", dtype)
    if dtype == torch.bfloat16:
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    found = attention_rows(model, inputs, CHOSEN)
    assert {layer.dtype for layer in found.values()} == {torch.float32}
    double, inputs = zoo.build("llava")
    assert_rows(found, whole(double, inputs), CHOSEN, 1e-4 if dtype == torch.float32 else 0.25)


@pytest.mark.parametrize("family", ["llava", "gemma3", "paligemma2"])
def test_blocks_of_rows_change_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = zoo.build(family)
    found = attention_rows(model, inputs, range(7))
    monkeypatch.setattr(rows, "BLOCK_BYTES", 3 * 8 * zoo.HEADS * inputs["input_ids"].shape[1])
    assert_rows(attention_rows(model, inputs, range(7)), whole(model, inputs), [*range(7)])
    assert_rows(found, whole(model, inputs), [*range(7)])


def test_no_tensor_has_two_sequence_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    inputs = long_prompt(inputs, 220)
    length = inputs["input_ids"].shape[1]
    with SquareTensors(range(length - 1, length + 2)) as squares:
        attention_rows(model, inputs, range(-8, 0))
    assert squares.found == []


def test_a_known_model_runs_once() -> None:
    model, inputs = zoo.build("llava")
    forwards: list[str] = []
    model.register_forward_pre_hook(lambda *_: forwards.append(model.config.text_config._attn_implementation))
    attention_rows(model, inputs, [0])
    assert [str.__eq__(each, NAME) for each in forwards].count(False) == 1  # under its own attention
    forwards.clear()
    attention_rows(model, inputs, [0])
    assert len(forwards) == 1


def test_the_model_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = zoo.build("llava")
    attention_rows(model, inputs, [0])  # transformers leaves hooks of its own at the first forward
    model.train()
    before = state(model)
    attention_rows(model, inputs, [0])
    assert state(model) == before
    monkeypatch.setattr(model.model.language_model.layers[1].mlp, "forward", failing)
    with pytest.raises(OutOfMemoryError, match=r"fit.*12\.50 GiB"):
        attention_rows(model, inputs, [0])
    assert state(model) == before


def test_a_layer_that_is_not_finite_is_named() -> None:
    model, inputs = zoo.build("llava")
    with torch.no_grad():
        model.model.language_model.layers[0].mlp.up_proj.weight[0] = torch.nan
    assert list(attention_rows(model, inputs, [5], [0])) == [0]
    with pytest.raises(NumericalError, match=r"decoder layer 1 \(LlamaDecoderLayer\): NaN in its attention"):
        attention_rows(model, inputs, [5])


def failing(x: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.50 GiB. GPU 0 has ...")


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no row": ([], {}, "number at least one position"),
    "a number": (3, {}, "number at least one position"),
    "words": (["first"], {}, "number at least one position"),
    "halves": ([0.5], {}, "number at least one position"),
    "a mask": ([True, False], {}, "number at least one position"),
    "two axes": ([[0, 1]], {}, "number at least one position"),
    "beyond": ([30], {}, "row 30 is out of range: the sequence has 29 positions"),
    "before": ([0, -30], {}, "row -30 is out of range: the sequence has 29 positions"),
    "layer beyond": ([0], {"layers": [3]}, "layer 3 is out of range: the model has at most 3"),
    "no layer": ([0], {"layers": []}, "layers is empty"),
    "layers by name": ([0], {"layers": ["first"]}, "number the layers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_and_layers(name: str) -> None:
    model, inputs = zoo.build("llava")
    assert inputs["input_ids"].shape[1] == 29
    chosen, more, message = BAD[name]
    with pytest.raises(InputError, match=message):
        attention_rows(model, inputs, chosen, **more)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input_ids": torch.zeros(2, 29).long()}, r"input_ids \[1, P\]"),
        ({"input_ids": torch.zeros(1, 29)}, "must be integers"),
        ({"input_ids": torch.full((1, 29), 999)}, "ids of the vocabulary"),
        ({"input_ids": torch.zeros(1, 0).long(), "attention_mask": None}, "ids of the vocabulary"),
        ({"input_ids": None}, "input_ids"),
        ({"attention_mask": torch.arange(29)[None].clamp(max=1)}, "padded"),
        ({"output_attentions": True}, "output_attentions"),
        ({"pixel_values": None}, "image tokens and no image"),
        ({"pixel_values": torch.zeros(1, 3, 9, 9).double()}, "the model refuses its inputs"),
        ({"input_ids": torch.full((1, 600), 20), "attention_mask": None, "pixel_values": None}, "context of 512"),
    ],
)
def test_bad_inputs(changed: dict[str, Any], message: str) -> None:
    model, inputs = zoo.build("llava")
    with pytest.raises(InputError, match=message):
        attention_rows(model, inputs | changed, [0])


def test_models_without_such_attention_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {"input_ids": torch.arange(10, 20)[None]}
    mamba = AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **zoo.TEXT)).eval()
    with pytest.raises(ModelError, match="MambaForCausalLM has no text decoder that attends"):
        attention_rows(mamba, ids, [0])
    with pytest.raises(ModelError, match="Linear is no transformers model"):
        attention_rows(nn.Linear(2, 2), ids, [0])
    hybrid = types_cases.case("qwen3_5")
    with pytest.raises(InputError, match=r"layer 2 .* of its 4 decoder layers only 1, 3 have softmax attention"):
        attention_rows(hybrid.model, hybrid.inputs, [0], [2])
    blip = types_cases.case("blip")
    with pytest.raises(ModelError, match=r"layer 0 \(BlipTextLayer\) writes its attention out"):
        attention_rows(blip.model, blip.inputs, [0])
    t5 = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", d_model=64, num_layers=1, vocab_size=200))
    with pytest.raises(ModelError, match="T5ForConditionalGeneration is an encoder-decoder of text alone"):
        attention_rows(t5, ids, [0])
    udop = types_cases.case("udop")
    with pytest.raises(InputError, match=r"Udop.* is an encoder-decoder.*decoder_input_ids"):
        attention_rows(udop.model, udop.inputs, [0])
    model, inputs = zoo.build("llava")
    attention_rows(model, inputs, [0])
    last = model.model.language_model.layers[-1].self_attn
    monkeypatch.setattr(last, "forward", lambda hidden_states, **_: (0.1 * hidden_states, None))
    with pytest.raises(ModelError, match=r"layer 2 \(LlamaDecoderLayer\) no longer attends"):
        attention_rows(model, inputs, [0])
