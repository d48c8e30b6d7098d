"""u, V and what each token reads against plain autograd over whole attention matrices, in float64."""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch
import types_cases
import types_oracle
import zoo
from engine_cases import state
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from dexar_fast import Explainer
from dexar_fast.backends.operands import keys_of_heads
from dexar_fast.errors import InputError, NumericalError
from dexar_fast.lowlevel import LayerGradients, gradients, per_layer, score_layer
from dexar_fast.lowlevel.collected import Chunk, Collected
from dexar_fast.model.attention import Call

TARGETS = torch.tensor([20, 31, 44, 17, 25])


def whole(family: str) -> tuple[Any, zoo.Inputs, Tensor]:
    """A model, its inputs, and G [T, L, H, S] of the answer."""
    model, inputs = zoo.build(family)
    found = oracle.oracle(model, inputs, TARGETS, return_gradients=True)["gradients"]
    return model, inputs, found[..., :-1]  # no query reads the last token


def assert_gradients(found: list[LayerGradients], wanted: Tensor, bound: float = 1e-12) -> None:
    assert [layer.layer for layer in found] == list(range(wanted.shape[1]))
    for layer in found:
        gradient, expected = layer.gradient(), wanted[:, layer.layer]
        assert gradient.shape == expected.shape and gradient.dtype == torch.float64
        assert float(expected.max()) > 0
        assert float((gradient - expected).abs().max()) <= bound * float(expected.max())


@pytest.mark.parametrize("family", [*zoo.FAMILIES, *zoo.VARIANTS])
def test_they_make_the_oracles_gradient(family: str) -> None:
    """Found with the decoder, and again once it is known and prompt and answer run in one forward."""
    model, inputs, wanted = whole(family)
    for _ in range(2):
        found = list(gradients(model, inputs, TARGETS))
        assert_gradients(found, wanted)
        assert {layer.value.shape[1] for layer in found} == {inputs["input_ids"].shape[1] + len(TARGETS) - 1}


@pytest.mark.parametrize("family", ["llava", "gemma3", "paligemma2", "qwen2_5_vl"])
@pytest.mark.parametrize("size", [1, 2])
def test_chunks_change_nothing(family: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, wanted = whole(family)
    monkeypatch.setattr(per_layer, "default_chunk", lambda layers: size)
    assert_gradients(list(gradients(model, inputs, TARGETS)), wanted)


@pytest.mark.parametrize("family", ["llava", "bakllava", "paligemma", "gemma3"])
def test_what_is_read_is_what_the_mask_lets_through(family: str) -> None:
    model, inputs = zoo.build(family)
    run = oracle.record(model, oracle.full_sequence(model, inputs, TARGETS[:-1]))
    first = inputs["input_ids"].shape[1] - 1
    for layer, seen in zip(gradients(model, inputs, TARGETS), run.attendable, strict=True):
        assert torch.equal(layer.reads, seen[first:])
        assert layer.numbers is None


def test_some_tokens_alone() -> None:
    model, inputs, wanted = whole("llava")
    (layer,) = gradients(model, inputs, TARGETS, [-2])
    assert layer.layer == 1
    torch.testing.assert_close(layer.gradient(slice(1, 3)), wanted[1:3, 1])


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_models_of_text_alone(name: str) -> None:
    """Against autograd through eager attention, lens and all."""
    config = AutoConfig.for_model(name, **zoo.TEXT, **({"sliding_window": 7} if name == "gemma2" else {}))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()
    ids = torch.arange(10, 25)[None]
    whole_ids = torch.cat([ids, TARGETS[None, :-1]], 1)
    with types_oracle.eager(model) as calls, types_oracle.kept_outputs(model) as outputs:
        model(whole_ids, use_cache=False)
    wanted = []
    for layer, (_, attention, _) in zip(model.model.layers, calls, strict=True):
        rows = model.lm_head(model.model.norm(outputs[layer][0, -5:]))
        if name == "gemma2":
            rows = config.final_logit_softcapping * torch.tanh(rows / config.final_logit_softcapping)
        logits = rows.gather(1, TARGETS[:, None])[:, 0]
        each = [torch.autograd.grad(logits[t], attention, retain_graph=True)[0][0, :, 14 + t] for t in range(5)]
        wanted.append(torch.stack(each).relu())
    seen = torch.stack([seen[-5:] for _, _, seen in calls], 1)
    for _ in range(2):
        found = list(gradients(model, {"input_ids": ids}, TARGETS.tolist()))
        assert_gradients(found, torch.stack(wanted, 1) * seen[:, :, None], 1e-6)


@pytest.mark.parametrize("name", ["minimax_m3_vl", "qwen3_5", "inkling2", "gemma3n", "mllama", "florence2", "t5gemma2"])
def test_scores_of_other_kinds_of_decoders(name: str) -> None:
    """Keys of the layer's own choice, recurrent layers, sinks, streams, keys beside the sequence."""
    case = types_cases.case(name)
    wanted = case.expected(TARGETS)
    found = list(gradients(case.model, case.inputs, TARGETS))
    scale = wanted["text_scores"].max()
    for layer in found:
        numbers = torch.arange(layer.value.shape[1]) if layer.numbers is None else layer.numbers
        both = torch.maximum(wanted["visual_scores"], wanted["text_scores"])[:, layer.layer]
        assert len(numbers) == layer.value.shape[1]
        assert float((layer.gradient().amax(-1) - both).abs().max()) <= 1e-5 * float(scale)


def test_keys_of_the_answer_that_stand_before_others_keep_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """T5Gemma 2 puts them before those of its encoder, so that a later chunk's come in between."""
    case = types_cases.case("t5gemma2")
    whole = list(gradients(case.model, case.inputs, TARGETS))
    monkeypatch.setattr(per_layer, "default_chunk", lambda layers: 2)
    for found, expected in zip(gradients(case.model, case.inputs, TARGETS), whole, strict=True):
        assert torch.equal(found.reads, expected.reads)
        torch.testing.assert_close(found.gradient(), expected.gradient())


def test_heads_may_read_different_keys_in_some_chunks() -> None:
    """[T, H, S] of all chunks then, each as wide as the last."""
    reads = torch.rand(2, 3, 9, generator=torch.Generator().manual_seed(0)) > 0.5  # [C, H, S]
    alike = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)) > 0.5
    visual, text = torch.tensor([1]), torch.tensor([0, 2])
    collected, call = Collected([5]), Call(*[torch.zeros(1, 1, 9, 2)] * 3, None, True, 1.0, None, None)
    for count, seen in ((4, alike[None]), (2, reads.transpose(0, 1))):
        chunk = Chunk()
        chunk.layer(torch.full((count, 3, 2), float(count)), call, keys_of_heads(visual, text, seen))
        collected.take([chunk.attribution(9)])
    u, value, found, numbers = collected.pop(5)
    assert u[:, 0, 0].tolist() == [4, 4, 4, 4, 2, 2] and value.shape == (1, 9, 2) and numbers is None
    assert torch.equal(found[4:], reads)
    assert torch.equal(found[:4, :, :6], alike[:, None].expand(-1, 3, -1)) and not found[:4, :, 6:].any()
    layer = LayerGradients(5, u, torch.ones(1, 9, 2), found, None)
    assert torch.equal(layer.gradient(), found * (2 * u[:, :, :1]))


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_their_scores_add_up_to_an_explanation(family: str) -> None:
    model, inputs = zoo.build(family)
    wanted = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    maps = torch.zeros_like(wanted.token_maps)
    for layer in gradients(model, inputs, TARGETS):
        is_visual = torch.zeros(layer.value.shape[1], dtype=torch.bool)
        is_visual[: inputs["input_ids"].shape[1]] = inputs["input_ids"][0] == zoo.IMAGE
        found = score_layer(layer.u, layer.value, is_visual.nonzero()[:, 0], (~is_visual).nonzero()[:, 0], layer.reads)
        torch.testing.assert_close(found.visual_score, wanted.visual_scores[:, layer.layer])
        torch.testing.assert_close(found.text_score, wanted.text_scores[:, layer.layer])
        maps += found.token_map
    torch.testing.assert_close(maps, wanted.token_maps)


def test_layers_are_let_go_one_after_another() -> None:
    model, inputs = zoo.build("llava")
    found = gradients(model, inputs, TARGETS)
    assert next(found).layer == 0
    assert [layer.layer for layer in found] == [1, 2] and next(found, None) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    _, _, wanted = whole("llava")
    model, inputs = zoo.build("llava", dtype)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    for layer in gradients(model, inputs, TARGETS):
        assert layer.u.dtype == layer.value.dtype == dtype and layer.gradient().dtype == torch.float32
        error = (layer.gradient().double() - wanted[:, layer.layer]).abs().max() / wanted[:, layer.layer].max()
        assert float(error) <= (1e-4 if dtype == torch.float32 else 0.25)


def test_the_model_is_left_as_it_was() -> None:
    model, inputs = zoo.build("llava")
    list(gradients(model, inputs, TARGETS))
    model.train()
    before = state(model)
    list(gradients(model, inputs, TARGETS))
    assert state(model) == before
    with pytest.raises(InputError):
        gradients(model, inputs, TARGETS, [7])
    assert state(model) == before


@pytest.mark.parametrize(
    ("targets", "more", "message"),
    [
        ([], {}, r"\[T\] integers with T >= 1"),
        ([[1, 2]], {}, r"\[T\] integers"),
        ([0.5], {}, r"\[T\] integers"),
        (["a word"], {}, r"must be \[T\] integers"),
        ([zoo.IMAGE], {}, "image token"),
        ([zoo.VOCABULARY], {}, "vocabulary"),
        ([20] * 600, {}, "context of 512"),
        ([20], {"layers": [3]}, "at most 3 layers"),
        ([20], {"layers": []}, "layers is empty"),
    ],
)
def test_bad_answers_and_layers(targets: Any, more: dict[str, Any], message: str) -> None:
    model, inputs = zoo.build("llava")
    with pytest.raises(InputError, match=message):
        gradients(model, inputs, targets, **more)


def test_a_layer_that_is_not_finite_is_named() -> None:
    model, inputs = zoo.build("llava")
    with torch.no_grad():
        model.model.language_model.layers[1].self_attn.v_proj.weight[0] = torch.nan
    with pytest.raises(NumericalError, match=r"layer 1: NaN"):
        list(gradients(model, inputs, TARGETS))
