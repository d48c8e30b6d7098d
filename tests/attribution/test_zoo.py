"""The tiny models are sound, and the oracle is what METHOD.md says: checked without the engine."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import oracle as reference
import pytest
import torch
import zoo
from scipy import ndimage
from transformers import DynamicCache

from dexar_fast.model.cache import to_forward

ALL = [*zoo.FAMILIES, *zoo.VARIANTS]
STEPS = 6


def words(count: int, seed: int = 7) -> torch.Tensor:
    return torch.tensor(zoo.Draw(seed).words(count))


def decode(model: Any, inputs: zoo.Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedy ids [T] and the logits [T, vocabulary] of each step, in the model's own precision."""
    logits: list[torch.Tensor] = []
    hook = model.register_forward_hook(lambda _module, _args, output: logits.append(output.logits[0, -1]))
    try:
        ids = model.generate(**inputs, max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False)
    finally:
        hook.remove()
    return ids[0, inputs["input_ids"].shape[1] :], torch.stack(logits)


@pytest.mark.parametrize("family", ALL)
def test_one_pass_over_prompt_and_answer_equals_decoding(family: str) -> None:
    model, inputs = zoo.build(family)
    ids, logits = decode(model, inputs)
    with torch.no_grad():
        full = model(**reference.full_sequence(model, inputs, ids), use_cache=False).logits[0]
    prompt = inputs["input_ids"].shape[1]
    torch.testing.assert_close(full[prompt - 1 : prompt - 1 + STEPS], logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", ALL)
def test_processor_output_drives_a_plain_forward(family: str) -> None:
    model, inputs = zoo.build(family)
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.shape == (1, inputs["input_ids"].shape[1], zoo.VOCABULARY)
    assert logits.std() > 1


@pytest.mark.parametrize("family", ALL)
def test_prompt_has_text_before_and_after_the_image(family: str) -> None:
    _, inputs = zoo.build(family)
    visual = torch.isin(inputs["input_ids"][0], torch.tensor([zoo.IMAGE, zoo.VIDEO])).nonzero()[:, 0]
    assert 9 <= len(visual) <= 64
    assert visual[0] > 0
    assert visual[-1] < inputs["input_ids"].shape[1] - 1


@pytest.mark.parametrize("family", ALL)
def test_weights_depend_on_the_seed_alone(family: str) -> None:
    double, inputs = zoo.build(family, torch.float64)
    single, again = zoo.build(family, torch.float32)
    other, _ = zoo.build(family, torch.float32, seed=1)
    for wide, narrow in zip(double.parameters(), single.parameters(), strict=True):
        assert torch.equal(wide, narrow.double())
    assert all(torch.equal(inputs[name], again[name]) for name in inputs)
    assert not torch.equal(other.lm_head.weight, single.lm_head.weight)


@pytest.mark.parametrize("family", ALL)
def test_oracle_gradient_is_a_finite_difference(family: str) -> None:
    """Adding e to A_l[h, p_t, j] adds e V_l[k(h), j] to head h's output: o_l[v_t] must move by e times G."""
    model, inputs = zoo.build(family)
    targets = words(3)
    result = reference.oracle(model, inputs, targets, return_gradients=True)
    full = reference.full_sequence(model, inputs, targets)
    cache = DynamicCache()
    with torch.no_grad():
        model(**full, **to_forward(model, cache), use_cache=True)
    token, position = 1, inputs["input_ids"].shape[1]
    gradients = result["gradients"][token]
    checked = [(layer, head) for layer, head in itertools.product(range(len(gradients)), (0, 3))]
    checked = [(layer, head) for layer, head in checked if gradients[layer, head].any()]
    assert {layer for layer, _ in checked} == set(range(len(gradients)))
    for layer, head in checked:
        row = gradients[layer, head]
        key = int(row.argmax())
        values = cache.layers[layer].values[0]
        value = values[head // (zoo.HEADS // len(values)), key]
        slope = _slope(model, full, layer, head, position, value, int(targets[token]))
        # Gemma 2 runs its own eager attention here, whose softmax is float32.
        assert slope == pytest.approx(row[key].item(), rel=2e-4, abs=2e-4)


def _slope(
    model: Any, full: zoo.Inputs, layer: int, head: int, position: int, value: torch.Tensor, target: int
) -> float:
    """Central difference of layer `layer`'s lens of `target` along `value` in one head's attention output."""
    step = 3e-3
    columns = slice(head * zoo.HEAD_DIM, (head + 1) * zoo.HEAD_DIM)
    decoder_layer = reference.text_model(model).layers[layer]
    logits = []
    for sign in (1, -1):
        outputs: list[torch.Tensor] = []

        def shift(_module: Any, args: tuple[torch.Tensor], by: float = sign * step) -> tuple[torch.Tensor]:
            moved = args[0].clone()
            moved[0, position, columns] += by * value
            return (moved,)

        hooks = [
            decoder_layer.self_attn.o_proj.register_forward_pre_hook(shift),
            decoder_layer.register_forward_hook(lambda _m, _a, out, kept=outputs: kept.append(out)),
        ]
        with torch.no_grad():
            model(**full, use_cache=False)
            logits.append(reference.lens(model, outputs[0][:, position])[0, target].item())
        for hook in hooks:
            hook.remove()
    return (logits[0] - logits[1]) / (2 * step)


@pytest.mark.parametrize("family", ALL)
def test_random_models_exercise_every_part_of_the_method(family: str) -> None:
    results = []
    for seed in range(3):
        model, inputs = zoo.build(family, seed=seed)
        results.append(reference.oracle(model, inputs, words(STEPS, seed)))
    for result in results:
        kept = (result["head_weights"] > 0).double().mean()
        assert 0.05 < kept < 0.95
        assert (result["token_maps"] > 0).any()
    weights = torch.cat([result["token_weights"] for result in results])
    assert (weights > 0).any() and (weights == 0).any()


@pytest.mark.parametrize("family", ["bakllava", "paligemma2", "gemma3", "aya_vision"])
def test_sliding_window_hides_some_visual_keys_and_not_all(family: str) -> None:
    model, inputs = zoo.build(family)
    recording = reference.record(model, reference.full_sequence(model, inputs, words(STEPS)))
    visual = (inputs["input_ids"][0] == zoo.IMAGE).nonzero()[:, 0]
    seen = torch.stack(recording.attendable)[:, -2][:, visual].sum(1)
    assert (seen < len(visual)).any()
    assert (seen > 0).any()


def test_bidirectional_blocks_are_what_the_models_use() -> None:
    for family in ("paligemma", "paligemma2", "gemma3"):
        model, inputs = zoo.build(family)
        recording = reference.record(model, reference.full_sequence(model, inputs, words(2)))
        first = int((inputs["input_ids"][0] == zoo.IMAGE).nonzero()[0])
        assert any(rows[first, first + 1] for rows in recording.attendable)
        prompt = inputs["input_ids"].shape[1]
        assert not any(rows[prompt - 1, prompt] for rows in recording.attendable)


def test_soft_caps_bite() -> None:
    model, inputs = zoo.build("paligemma2")
    with torch.no_grad():
        capped = model(**inputs).logits
        model.config.text_config.attn_logit_softcapping = None
        for layer in reference.text_model(model).layers:
            layer.self_attn.attn_logit_softcapping = None
        uncapped = model(**inputs).logits
    assert (capped - uncapped).abs().max() > 0.1
    if reference._forward_caps_logits(model):
        assert 4 < capped.abs().max() <= 5


def test_oracle_leaves_the_model_as_it_was() -> None:
    model, inputs = zoo.build("llava")
    with torch.no_grad():
        logits = model(**inputs).logits
    hooks = [len(module._forward_hooks) for module in model.modules()]
    implementation = model.config.text_config._attn_implementation
    reference.oracle(model, inputs, words(2))
    assert model.config.text_config._attn_implementation == implementation
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, logits)


@pytest.mark.parametrize("rank", range(1, 10))
def test_rank_filter_is_scipys(rank: int) -> None:
    maps = torch.rand(2, 3, 20, dtype=torch.float64)
    expected = ndimage.rank_filter(maps.reshape(6, 4, 5).numpy(), rank - 1, size=(1, 3, 3), mode="nearest")
    np.testing.assert_array_equal(reference._rank_filter(maps, (4, 5), rank).reshape(6, 4, 5), expected)


@pytest.mark.parametrize("heads", [1, 4, 5])
def test_median_is_the_midpoint_quantile(heads: int) -> None:
    values = torch.rand(3, heads, dtype=torch.float64)
    torch.testing.assert_close(reference._median(values), values.quantile(0.5, dim=-1))


def test_score_of_an_empty_set_is_zero_and_of_a_short_one_uses_all() -> None:
    values = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    assert reference._score(values[:0], "max") == 0
    assert reference._score(values, "max") == 3
    assert reference._score(values, "mean") == 2
    assert reference._score(values, ("topk", 2)) == 2.5
    assert reference._score(values, ("topk", 9)) == 2
