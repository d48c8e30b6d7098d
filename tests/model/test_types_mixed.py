"""Decoders that mix kinds of layers, choose their keys, or hand on several streams are explained as autograd has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cut_oracle
import oracle
import pytest
import torch
import transformers
import types_agree
import types_mixed
import types_zoo
from packaging.version import Version
from torch import Tensor
from transformers import CONFIG_MAPPING

from dexar_fast import Explainer, Explanation, KVPool
from dexar_fast.attribution.layer_pass import Pass
from dexar_fast.errors import InputError, ModelError
from dexar_fast.model.agreement import agreement_of

TARGETS = torch.tensor([20, 31, 44, 57, 120])
# Of the largest of each array. Some compute states, mixers or indexers in float32, Inkling 2 everything
BOUNDS = {"glm5_next": 1e-6, "hy_v4_vl": 1e-6, "inkling2": 1e-4, "inkling2_loop": 1e-4}
BOUND = 1e-9  # of the others
NO_IMAGE = {"suppress_tokens": [types_mixed.zoo.IMAGE, types_mixed.zoo.VIDEO]}
CHOOSING = ("dots3_note", "glm5_next", "hy_v4_vl", "minimax_m3_vl", "mistral_large4", "qwen4_exp")


@pytest.fixture(autouse=True)
def one_thread(threads: Callable[[int], None]) -> None:
    """More wait for each other longer than such small models take."""
    threads(1)


def build(model_type: str) -> Any:
    if model_type not in CONFIG_MAPPING or Version(transformers.__version__) < Version("5.24"):
        pytest.skip(f"this transformers has no {model_type}, or another class of it")
    return types_zoo.build(model_type, types_mixed.MIXED[model_type])


def agrees(found: Explanation, expected: dict[str, Tensor], model_type: str) -> None:
    types_agree.agrees(found, expected, BOUNDS.get(model_type, BOUND))


@pytest.mark.parametrize("model_type", types_mixed.MIXED)
def test_it_is_explained_as_autograd_has_it(model_type: str) -> None:
    model, inputs = build(model_type)
    explainer = Explainer(model)
    expected = cut_oracle.expected(model, inputs, TARGETS)
    for _ in range(2):  # the prompt by itself, then in one forward with its answer
        agrees(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, model_type)
    agrees(Explainer(model, chunk_size=2).explain_inputs(inputs, target_ids=TARGETS), expected, model_type)
    written = explainer.explain_inputs(inputs, max_new_tokens=5, min_new_tokens=5, **NO_IMAGE)
    expected = cut_oracle.expected(model, inputs, written.token_ids)
    agrees(written, expected, model_type)
    with explainer.stream_inputs(inputs, chunk_size=2, max_new_tokens=5, min_new_tokens=5, **NO_IMAGE) as pieces:
        assert [token for piece in pieces for token in piece.token_ids.tolist()] == written.token_ids.tolist()
        agrees(pieces.explanation(), expected, model_type)


@pytest.mark.parametrize(
    ("model_type", "goes_on"),
    [("lfm2_vl", True), ("qwen3_5", True), ("minicpmv4_7", True), ("minimax_m3_vl", True), ("inkling_mm_model", False)],
)
def test_a_stream_goes_on_where_its_last_chunk_ended(
    model_type: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cache of its own; not where that differs from one forward of all, as with convolutions behind attention."""
    exact, inputs = build(model_type)
    model, narrow = types_zoo.build(model_type, types_mixed.MIXED[model_type], torch.float32)
    whole: list[int] = []
    run = Pass.with_all_before

    def counted(self: Pass, answer: Tensor, done: int, *more: Any) -> list[Any]:
        whole.append(done)
        return run(self, answer, done, *more)

    monkeypatch.setattr(Pass, "with_all_before", counted)
    explainer = Explainer(model)
    for begins in [[0, 2], [0]] if goes_on else [[0, 2, 4, 6]] * 2:  # the second was compared with what goes on
        with explainer.stream_inputs(narrow, chunk_size=2, max_new_tokens=8, min_new_tokens=8, **NO_IMAGE) as pieces:
            list(pieces)
        assert whole == begins
        whole.clear()
    found = pieces.explanation()
    expected = cut_oracle.expected(exact, inputs, found.token_ids)
    for name in ("token_maps", "visual_scores", "text_scores"):
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(getattr(found, name).double(), expected[name], rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("sizes", [(1, 2), (2, 1)])
def test_one_token_behind_a_state_tells_nothing_of_several(
    sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models run them by other code. Here several ignore what ran before, which no error tells."""
    model, inputs = types_zoo.build("lfm2_vl", types_mixed.MIXED["lfm2_vl"], torch.float32)
    exact, wide = build("lfm2_vl")
    behind = Pass.behind

    def forgetful(self: Pass, cache: Any, answer: Tensor, done: int, size: int) -> list[Any]:
        if size > 1:
            for layer in cache.layers:
                for state in [getattr(layer, "conv_states", None)]:
                    if state is not None:
                        for each in state.values() if isinstance(state, dict) else [state]:
                            each.zero_()
        return behind(self, cache, answer, done, size)

    monkeypatch.setattr(Pass, "behind", forgetful)
    explainer = Explainer(model)
    for size in sizes:
        with explainer.stream_inputs(inputs, chunk_size=size, max_new_tokens=8, min_new_tokens=8, **NO_IMAGE) as pieces:
            list(pieces)
        found = pieces.explanation()
        expected = cut_oracle.expected(exact, wide, found.token_ids)
        scale = float(expected["token_maps"].abs().max())
        torch.testing.assert_close(found.token_maps.double(), expected["token_maps"], rtol=0, atol=1e-4 * scale)
    assert agreement_of(model).goes_on == {False: True, True: False}


@pytest.mark.parametrize("model_type", types_mixed.MIXED)
def test_the_oracle_computes_what_the_model_does(model_type: str) -> None:
    model, inputs = build(model_type)
    full, prompt = oracle.full_sequence(model, inputs, TARGETS), inputs["input_ids"].shape[1]
    with torch.no_grad():
        own = cut_oracle.forward(model, full, prompt)
    logits, calls = cut_oracle.run(model, full, prompt)
    assert float((logits - own).detach().abs().max()) <= 1e-12 * float(own.abs().max())
    read = [int(call.seen[0, :, prompt - 1].sum(-1).max()) for call in calls]
    assert not model_type.startswith(CHOOSING) or min(read) < prompt / 2


@pytest.mark.parametrize("model_type", ["inkling_mm_model", "minimax_m3_vl"])
def test_the_oracle_is_the_slope_of_the_logit(model_type: str) -> None:
    """Of the logit at p_t by one probability of p_t, the others held, through a layer whose output is the decoder's."""
    model, inputs = build(model_type)
    full, prompt = oracle.full_sequence(model, inputs, TARGETS), inputs["input_ids"].shape[1]
    found = cut_oracle.gradients_of(model, inputs, TARGETS)
    layer = cut_oracle.layer_of(model, cut_oracle.run(model, full, prompt)[1][1].module)
    token, head, position = 2, 1, prompt + 1
    key = int(found[token, 1, head].argmax())

    def logit(step: float) -> float:
        attended = iter(range(2))

        def moved(attention: Tensor) -> Tensor:
            if next(attended, 0) == 1:
                attention = attention.clone()
                attention[0, head, position, key] += step
            return attention

        with cut_oracle.cut_behind(model, layer), torch.no_grad():
            return float(cut_oracle.run(model, full, prompt, moved)[0][0, position, TARGETS[token]])

    slope = (logit(1e-2) - logit(-1e-2)) / 2e-2
    assert slope == pytest.approx(float(found[token, 1, head, key]), rel=1e-3)


def test_heads_that_a_layer_lacks_are_zero_and_told() -> None:
    model, inputs = build("step3p7")
    found = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    assert found.visual_scores.shape == (5, 3, 8)
    assert not found.text_scores[:, 1, 4:].any()
    assert any("4 to 8 heads" in warning for warning in found.diagnostics["warnings"])
    with pytest.raises(ModelError, match="differ in their number of heads"):
        Explainer(model, mode="official").explain_inputs(inputs, target_ids=TARGETS)


def test_the_layers_without_maps_are_told() -> None:
    model, inputs = build("nemotron_h_omni")
    found = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    assert found.metadata["settings"]["layers"] == [0, 1]
    assert (found.metadata["attending_layers"], found.metadata["decoder_layers"]) == ([1, 3], 5)


def test_a_layer_that_runs_several_times_is_a_layer_each_time() -> None:
    model, inputs = build("inkling2_loop")
    found = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    assert (found.metadata["attending_layers"], found.metadata["decoder_layers"]) == ([0, 1, 2, 3, 2, 3, 4, 5], 6)
    some = Explainer(model, layers=[2, 7]).explain_inputs(inputs, target_ids=TARGETS)  # of 6 layers, 8 visits
    for name in ("visual_scores", "text_scores"):
        torch.testing.assert_close(getattr(some, name), getattr(found, name)[:, [2, 7]], rtol=0, atol=1e-9)
    with pytest.raises(InputError, match="layer 8 is out of range: the model has at most 8 layers"):
        Explainer(model, layers=[8]).explain_inputs(inputs, target_ids=TARGETS)


def test_a_pool_is_not_used_and_that_is_told() -> None:
    model, inputs = build("lfm2_vl")
    plain = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    pooled = Explainer(model, pool=KVPool(64))
    with pytest.warns(UserWarning, match="a pool does not: it is not used"):
        found = pooled.explain_inputs(inputs, target_ids=TARGETS)
    torch.testing.assert_close(found.token_maps, plain.token_maps, rtol=0, atol=0)


@pytest.mark.parametrize("model_type", ["gemma3n", "qwen4_exp", "inkling2"])
def test_streams_have_no_norm_to_run_twice(model_type: str) -> None:
    model, inputs = build(model_type)
    with pytest.raises(ModelError, match="mode='official', which norms twice, is not defined there"):
        Explainer(model, mode="official").explain_inputs(inputs, target_ids=TARGETS)


def test_no_map_is_filtered_where_heads_read_different_keys() -> None:
    model, inputs = build("minimax_m3_vl")
    with pytest.raises(ModelError, match="map_filter is not defined where the heads of a layer read different keys"):
        Explainer(model, map_filter=("rank", 5)).explain_inputs(inputs, target_ids=TARGETS)


def test_the_texts_relevance_is_scored_by_group_too() -> None:
    model, inputs = build("minimax_m3_vl")
    found = Explainer(model, text_relevance=True).explain_inputs(inputs, target_ids=TARGETS)
    gradients = cut_oracle.gradients_of(model, inputs, TARGETS)
    relevance = found.text_relevance
    assert relevance is not None
    expected = gradients[..., relevance.positions].sum((1, 2))
    torch.testing.assert_close(relevance.unfiltered_maps, expected, rtol=0, atol=1e-9 * float(expected.max()))


@pytest.mark.parametrize("model_type", ["qwen3_5", "hy_v4_vl", "minicpmv4_7"])
def test_a_prompt_that_ends_with_its_image_is_counted_on_as_generate_does(model_type: str) -> None:
    """By one on each axis of M-RoPE, where a plain forward goes on from the largest."""
    model, inputs = build(model_type)
    length = inputs["input_ids"].shape[1]
    prompt = int((inputs["input_ids"][0] == types_mixed.zoo.IMAGE).nonzero()[-1]) + 1
    inputs = {name: x[:, :prompt] if x.shape[:2] == (1, length) else x for name, x in inputs.items()}
    found = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    last = torch.zeros(0)

    def count(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        nonlocal last
        own = kwargs["position_ids"][..., :prompt]
        last = own[..., -1:]
        more = torch.arange(1, kwargs["position_ids"].shape[-1] - prompt + 1)
        return args, kwargs | {"position_ids": torch.cat([own, last + more], -1)}

    hook = model.get_decoder().register_forward_pre_hook(count, with_kwargs=True)
    expected = cut_oracle.expected(model, inputs, TARGETS)
    hook.remove()
    assert len(last.unique()) > 1
    agrees(found, expected, model_type)
