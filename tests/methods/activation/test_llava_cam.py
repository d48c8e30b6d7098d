"""LLaVA-CAM against plain autograd in float64, over the families; where it is not defined, it says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from asked import asked, asked_of
from oracle import full_sequence, text_model

from dexar_fast.errors import InputError, ModelError
from dexar_fast.methods.activation.llava_cam import LlavaCam

NORMS = {  # what stands before the MLP, by family
    "llava": "post_attention_layernorm",
    "bakllava": "post_attention_layernorm",
    "llava_next": "post_attention_layernorm",
    "qwen2_5_vl": "post_attention_layernorm",
    "qwen3_vl_moe": "post_attention_layernorm",
    "smolvlm": "post_attention_layernorm",
    "paligemma": "post_attention_layernorm",
    "paligemma2": "pre_feedforward_layernorm",
    "gemma3": "pre_feedforward_layernorm",
}
TOKENS = torch.tensor([165, 19, 144])


def plain(family: str, layer: int, inputs: zoo.Inputs | None = None) -> torch.Tensor:
    """The maps of TOKENS, and that of the sum of their logits: one backward each of a forward with its whole graph."""
    model, own = zoo.build(family)
    inputs = {name: x for name, x in (inputs or own).items() if name != "labels"}
    kept: list[torch.Tensor] = []
    norm = getattr(text_model(model).layers[layer], NORMS[family])
    norm.register_forward_hook(lambda module, args, output: kept.append(output))
    logits = model(**full_sequence(model, inputs, TOKENS), use_cache=False).logits[0]
    prompt = inputs["input_ids"].shape[1]
    chosen = [logits[prompt - 1 + t, token] for t, token in enumerate(TOKENS.tolist())]
    visual = inputs["input_ids"][0] == zoo.IMAGE
    maps = []
    for target in [*chosen, sum(chosen)]:
        (gradient,) = torch.autograd.grad(target, kept[0], retain_graph=True)
        weights = gradient[0, : len(visual)][visual].relu().mean(0)
        found = (kept[0][0, : len(visual)][visual] * weights).mean(-1).relu()
        maps.append(found / found.max() if found.max() > 0 else found * 0)
    return torch.stack(maps).detach()


@pytest.mark.parametrize("family", NORMS)
def test_maps_are_those_of_plain_autograd(family: str) -> None:
    expected = plain(family, 1)
    model, inputs = zoo.build(family)
    with asked(model, inputs, TOKENS) as request:
        found = LlavaCam(layer=1).maps(request)
    torch.testing.assert_close(found.token_maps.double(), expected[:-1], rtol=0, atol=2e-5)
    torch.testing.assert_close(found.sequence_map.double(), expected[-1], rtol=0, atol=2e-5)
    assert found.token_maps.dtype == torch.float32 and found.diagnostics == {"layer": 1}


def test_one_token_and_the_first_layer() -> None:
    model, inputs = zoo.build("llava")
    with asked(model, inputs, TOKENS[:1]) as request:
        found = LlavaCam(layer=-3).maps(request)
    torch.testing.assert_close(found.token_maps[0].double(), plain("llava", 0)[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(found.sequence_map, found.token_maps[0])


def test_the_layer_is_at_two_fifths_of_the_depth_unless_named() -> None:
    with asked_of("gemma3", 1) as request:
        assert len(request.decoder.layers) == 4
        assert LlavaCam().maps(request).diagnostics == {"layer": 2}
    with asked_of("llava", 1) as request:
        assert LlavaCam().maps(request).diagnostics == {"layer": 1}


def test_where_nothing_is_positive_the_map_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a norm that gives no positive number there is no map, and no NaN."""
    model, inputs = zoo.build("llava")
    norm = model.model.language_model.layers[1].post_attention_layernorm
    norm.register_forward_hook(lambda module, args, output: -output.abs())
    with asked(model, inputs, TOKENS) as request:
        found = LlavaCam(layer=1).maps(request)
    assert torch.equal(found.token_maps, torch.zeros(3, 16)) and torch.equal(found.sequence_map, torch.zeros(16))


def test_smoothgrad_is_the_mean_over_noisy_pixels() -> None:
    model, inputs = zoo.build("llava")
    method = LlavaCam(layer=1, samples=2, noise=0.2, seed=5)
    with asked(model, inputs, TOKENS) as request:
        found, again = method.maps(request), method.maps(request)
        other = LlavaCam(layer=1, samples=2, noise=0.2, seed=6).maps(request)
    generator, pixels = torch.Generator().manual_seed(5), inputs["pixel_values"]
    span = 0.2 * (pixels.max() - pixels.min())
    copies = [pixels + span * torch.randn(pixels.shape, generator=generator) for _ in range(2)]
    expected = torch.stack([plain("llava", 1, inputs | {"pixel_values": copy}) for copy in copies]).mean(0)
    torch.testing.assert_close(found.token_maps.double(), expected[:-1], rtol=0, atol=2e-5)
    assert torch.equal(found.token_maps, again.token_maps)
    assert not torch.equal(found.token_maps, other.token_maps)


def test_a_mask_of_pixels_gets_no_noise() -> None:
    with asked_of("idefics3", 2) as request:
        assert LlavaCam(samples=2).maps(request).token_maps.isfinite().all()


def test_half_precision_gives_float32_maps() -> None:
    with asked_of("qwen2_5_vl", 2, dtype=torch.bfloat16) as request:
        assert LlavaCam().maps(request).token_maps.dtype == torch.float32


def test_the_model_stays_as_it_was() -> None:
    model, inputs = zoo.build("paligemma2")
    hooks = {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()}
    with asked(model, inputs, TOKENS) as request:
        LlavaCam().maps(request)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    after = {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()}
    assert {name for name in hooks if hooks[name] != after[name] and "vision" not in name} == set()


@pytest.mark.parametrize("layer", [-1, 2])
def test_the_last_layer_is_refused(layer: int) -> None:
    with asked_of("llava", 1) as request, pytest.raises(InputError, match="layer 2 is the last"):
        LlavaCam(layer=layer).maps(request)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [({"layer": 3}, "out of range"), ({"layer": -4}, "out of range")],
)
def test_bad_knobs_are_refused(knobs: dict[str, Any], message: str) -> None:
    with asked_of("llava", 1) as request, pytest.raises(InputError, match=message):
        LlavaCam(**knobs).maps(request)


def test_a_parallel_block_is_refused_by_name() -> None:
    with asked_of("aya_vision", 1) as request, pytest.raises(ModelError, match="Cohere2DecoderLayer has no norm"):
        LlavaCam().maps(request)


def test_a_module_without_a_gradient_is_refused_by_name() -> None:
    model, inputs = zoo.build("llava")
    linear = model.model.language_model.layers[2].mlp.down_proj
    linear.forward = lambda x, own=linear.forward: own(x).detach()
    with asked(model, inputs, TOKENS) as request, pytest.raises(ModelError, match="Linear has no gradient"):
        LlavaCam(layer=1).maps(request)
