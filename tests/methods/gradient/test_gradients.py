"""Gradients at the visual embeddings against plain autograd in float64 with the whole graph, over the families."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import zoo
from asked import asked, asked_of
from oracle import full_sequence, text_model

from dexar_fast.errors import InputError, ModelError
from dexar_fast.methods.gradient.integrated import IntegratedGradients
from dexar_fast.methods.gradient.plain import GradientXInput, InputGradient
from dexar_fast.methods.gradient.smooth import SmoothGrad

FAMILIES = ("llava", "llava_next", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "smolvlm", "paligemma2", "gemma3")
TOKENS = torch.tensor([165, 19, 144])
Leaves = list[torch.Tensor]
Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Plain:
    """What plain autograd finds: the embeddings [N, d] of each place, the logits [T], their gradients."""

    leaves: Leaves
    logits: torch.Tensor
    gradients: list[Leaves]


def plain(family: str, change: Change = torch.clone) -> Plain:
    """One forward of prompt and answer with every weight in its graph, the visual embeddings changed."""
    model, inputs = zoo.build(family)
    inputs = {name: x for name, x in inputs.items() if name != "labels"}
    visual = (inputs["input_ids"][0] == zoo.IMAGE).nonzero()[:, 0]
    leaves: Leaves = []

    def leaf(values: torch.Tensor) -> torch.Tensor:
        leaves.append(change(values.detach()).requires_grad_())
        return leaves[-1]

    def deep(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        kwargs["deepstack_visual_embeds"] = [leaf(each) for each in kwargs["deepstack_visual_embeds"]]
        return args, kwargs

    def enter(module: Any, args: Any) -> Any:
        states = args[0].clone()
        states[0, visual] = leaf(states[0, visual])
        return (states, *args[1:])

    decoder = text_model(model)
    hooks = [decoder.layers[0].register_forward_pre_hook(enter)]
    if family.startswith("qwen3"):
        hooks.append(decoder.register_forward_pre_hook(deep, with_kwargs=True))
    logits = model(**full_sequence(model, inputs, TOKENS), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    prompt = inputs["input_ids"].shape[1]
    chosen = torch.stack([logits[prompt - 1 + t, token] for t, token in enumerate(TOKENS.tolist())])
    return Plain(leaves, chosen, [list(torch.autograd.grad(o, leaves, retain_graph=True)) for o in chosen])


def products(values: Leaves, gradients: Leaves) -> torch.Tensor:
    return sum((x.detach() * g).sum(-1) for x, g in zip(values, gradients, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_maps_are_those_of_plain_autograd(family: str) -> None:
    expected = plain(family)
    assert len(expected.leaves) == (3 if family.startswith("qwen3") else 1)
    with asked(*zoo.build(family), TOKENS) as request:
        lengths, shares = InputGradient().maps(request), GradientXInput().maps(request)
    for t, gradients in enumerate(expected.gradients):
        length = torch.cat(gradients, dim=-1).norm(dim=-1)
        torch.testing.assert_close(lengths.token_maps[t], length, rtol=1e-5, atol=1e-5 * float(length.max()))
        share = products(expected.leaves, gradients).relu()
        torch.testing.assert_close(shares.token_maps[t], share, rtol=1e-5, atol=1e-5 * float(share.max()))
    torch.testing.assert_close(lengths.sequence_map, lengths.token_maps.sum(0))
    assert (lengths.token_maps > 0).all() and (shares.token_maps > 0).any()


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "paligemma2"])
@pytest.mark.parametrize("baseline", ["mean", "zero"])
def test_integrated_gradients_are_the_midpoint_rule(family: str, baseline: str) -> None:
    def start(values: torch.Tensor) -> torch.Tensor:
        return values.mean(0, keepdim=True) if baseline == "mean" else torch.zeros_like(values[:1])

    ends = [plain(family, lambda x, share=share: start(x) + share * (x - start(x))) for share in (0, 1)]
    way = [b.detach() - a.detach() for a, b in zip(ends[0].leaves, ends[1].leaves, strict=True)]
    expected = torch.zeros(len(TOKENS), len(way[0]), dtype=torch.float64)
    for share in (1 / 6, 1 / 2, 5 / 6):
        found = plain(family, lambda x, share=share: start(x) + share * (x - start(x)))
        expected += torch.stack([products(way, each) for each in found.gradients]) / 3
    with asked(*zoo.build(family), TOKENS) as request:
        maps = IntegratedGradients(steps=3, baseline=baseline).maps(request)
    torch.testing.assert_close(maps.token_maps, expected.relu(), rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    change = (ends[1].logits - ends[0].logits).detach()
    left = (change - expected.sum(1)).abs() / change.abs()
    torch.testing.assert_close(torch.tensor(maps.diagnostics["left_out"]).double(), left, rtol=1e-3, atol=1e-4)


def test_more_steps_leave_out_less() -> None:
    with asked_of("llava", 2) as request:
        few, many = (IntegratedGradients(steps=steps).maps(request).diagnostics["left_out"] for steps in (1, 32))
    assert max(many) < 0.02 < max(few)


def test_smoothgrad_is_the_length_of_the_mean_gradient_under_noise() -> None:
    generator = torch.Generator().manual_seed(5)

    def noisy(values: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        return values + 0.2 * (values.max() - values.min()) * noise

    runs = [plain("llava", noisy).gradients for _ in range(2)]
    expected = torch.stack([sum(run[t][0] for run in runs).norm(dim=-1) / 2 for t in range(len(TOKENS))])
    with asked(*zoo.build("llava"), TOKENS) as request:
        found, again, other = (SmoothGrad(2, 0.2, seed).maps(request).token_maps for seed in (5, 5, 6))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.max()))
    assert torch.equal(found, again) and not torch.equal(found, other)


def test_without_noise_smoothgrad_is_the_input_gradient() -> None:
    with asked_of("llava", 2) as request:
        found, expected = SmoothGrad(2, 0.0).maps(request), InputGradient().maps(request)
    torch.testing.assert_close(found.token_maps, expected.token_maps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_smoothgrad_sums_half_precision_in_float32(dtype: torch.dtype) -> None:
    """The same gradient 48 times: its sum has no place in 8 or 11 bits, and float32 holds it to the bit."""
    with asked_of("llava", 2, dtype=dtype) as request:
        found, expected = SmoothGrad(48, 0.0).maps(request), InputGradient().maps(request)
    torch.testing.assert_close(found.token_maps, expected.token_maps, rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", [InputGradient(), GradientXInput(), IntegratedGradients(2), SmoothGrad(2)])
def test_half_precision_gives_float32_maps_and_the_model_stays_as_it_was(method: Any) -> None:
    with asked_of("qwen2_5_vl", 2, dtype=torch.bfloat16) as request:
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in request.model.modules()]
        found = method.maps(request)
        assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in request.model.modules()]
        assert all(weight.requires_grad and weight.grad is None for weight in request.model.parameters())
    assert found.token_maps.dtype == torch.float32 and found.token_maps.isfinite().all()


def test_a_cut_graph_is_refused_by_name() -> None:
    model, inputs = zoo.build("llava")
    linear = model.model.language_model.layers[1].mlp.down_proj
    linear.forward = lambda x, own=linear.forward: own(x).detach()
    with asked(model, inputs, TOKENS) as request, pytest.raises(ModelError, match="Linear has no gradient"):
        InputGradient().maps(request)


@pytest.mark.parametrize(
    ("method", "knobs", "message"),
    [
        (IntegratedGradients, {"steps": 0}, "steps is a whole number of at least 1"),
        (IntegratedGradients, {"baseline": "black"}, "baseline is one of 'mean', 'zero'"),
        (SmoothGrad, {"samples": 0}, "samples is a whole number"),
        (SmoothGrad, {"noise": -1}, "noise is a finite number"),
        (SmoothGrad, {"seed": -1}, "seed is a whole number"),
    ],
)
def test_bad_knobs_are_refused(method: Any, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        method(**knobs)
