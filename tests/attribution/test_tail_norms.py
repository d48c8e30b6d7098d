"""Norms that scale in a way of their own are left to autograd, whatever their weights are when they are first seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from tail_agreement import TARGETS, assert_same, by_autograd, trusted_layers
from torch import Tensor, nn

from dexar_fast import Explainer

WIDTH = zoo.TEXT["hidden_size"]
Scale = Callable[[Tensor, Tensor], Tensor]  # of the normed x and the weight


class OwnRMSNorm(nn.Module):
    """scale(x / rms(x), weight)."""

    def __init__(self, scale: Scale, weight: Tensor, name: str = "weight") -> None:
        super().__init__()
        self.eps = 1e-6
        self._scale, self._name = scale, name
        self.register_parameter(name, nn.Parameter(weight))

    def forward(self, x: Tensor) -> Tensor:
        normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return self._scale(normed, getattr(self, self._name))


def three_axes(normed: Tensor, weight: Tensor) -> Tensor:
    _, _, width = normed.shape
    return normed * weight[:width]


def halves(normed: Tensor, weight: Tensor) -> Tensor:
    return normed * weight.repeat(2)


NORMS: dict[str, tuple[Callable[[], nn.Module], bool]] = {  # and whether their tails are taken
    "plain": (lambda: OwnRMSNorm(lambda n, w: n * w, torch.ones(WIDTH)), True),
    "three axes": (lambda: OwnRMSNorm(three_axes, torch.ones(WIDTH)), True),
    "one added": (lambda: OwnRMSNorm(lambda n, w: n * (1 + w), torch.zeros(WIDTH)), True),
    "squared": (lambda: OwnRMSNorm(lambda n, w: n * w.square(), torch.ones(WIDTH)), False),
    "exponential": (lambda: OwnRMSNorm(lambda n, w: n * w.exp(), torch.zeros(WIDTH)), False),
    "clamped": (lambda: OwnRMSNorm(lambda n, w: n * w.clamp(0.8, 1.2), torch.ones(WIDTH)), False),
    "another name": (lambda: OwnRMSNorm(lambda n, w: n * w, torch.ones(WIDTH), "gamma"), False),
    "one number": (lambda: OwnRMSNorm(lambda n, w: n * w, torch.ones(1)), False),
    "halves": (lambda: OwnRMSNorm(halves, torch.ones(WIDTH // 2)), False),
    "an error": (lambda: OwnRMSNorm(lambda n, w: n * w if len(n[0]) > 1 else [][0], torch.ones(WIDTH)), False),
}


def with_norms(make: Callable[[], nn.Module]) -> tuple[Any, Any]:
    """LLaVA with other norms, and its inputs."""
    model, inputs = zoo.build("llava", torch.float32)
    text = model.model.language_model
    for layer in text.layers:
        layer.input_layernorm, layer.post_attention_layernorm = make(), make()
    text.norm = make()
    return model, inputs


@pytest.mark.parametrize("name", NORMS)
def test_weights_may_change_once_a_tail_is_trusted(name: str) -> None:
    make, taken = NORMS[name]
    model, inputs = with_norms(make)
    explainer = Explainer(model)
    for _ in range(2):
        assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs), 1e-5)
    assert bool(trusted_layers(explainer)) == taken
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, OwnRMSNorm):
                (weight,) = module.parameters()
                weight.add_(0.5 * torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)))
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs), 1e-5)


class Adapted(nn.Module):
    """As adapters wrap a module: it is still there, deeper."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.added = nn.Linear(base.in_features, base.out_features, bias=False)
        nn.init.normal_(self.added.weight, generator=torch.Generator().manual_seed(0))

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.added(x)


@pytest.mark.parametrize("where", ["head", "norm"])
def test_a_module_of_the_lens_may_be_wrapped_later(where: str) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explainer = Explainer(model)
    before = explainer.explain_inputs(inputs, target_ids=TARGETS)
    if where == "head":
        model.lm_head = Adapted(model.lm_head)
    else:
        model.model.language_model.norm = nn.Sequential(model.model.language_model.norm, nn.Linear(WIDTH, WIDTH))
    expected = by_autograd(model, inputs)
    assert (before.token_maps - expected.token_maps).abs().max() > 1e-3 * expected.token_maps.abs().max()
    for _ in range(2):
        assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, 1e-5)
