"""Tails beside autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from dexar_fast import Explainer
from dexar_fast.attribution.tails import trust as tail
from dexar_fast.explanation import Explanation

TARGETS = [20, 30, 40, 50]


ARRAYS = ("visual_scores", "text_scores", "token_maps", "unfiltered_token_maps")


def by_autograd(model: Any, inputs: Any, **knobs: Any) -> Explanation:
    """With no block known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail, "block_of", lambda layer, attention: None)
        return Explainer(model, **knobs).explain_inputs(inputs, target_ids=TARGETS)


def assert_same(found: Explanation, expected: Explanation, tolerance: float) -> None:
    """To `tolerance` of the largest; E sums w G, and w is off by what two scores are, however little they differ."""
    largest = {array: getattr(expected, array).abs().max() for array in ARRAYS}
    scores = largest["visual_scores"] + largest["text_scores"]
    largest["token_maps"] += scores * largest["unfiltered_token_maps"]
    for array, scale in largest.items():
        assert (getattr(found, array) - getattr(expected, array)).abs().max() <= tolerance * scale, array


def trusted_layers(explainer: Explainer) -> set[int]:
    assert explainer.decoder is not None
    return set(explainer.decoder.trusted_tails)


def last_layer(model: Any) -> nn.Module:
    return model.model.language_model.layers[-1]


def trusted(model: Any, inputs: Any) -> Explainer:
    """Has seen that every tail agrees."""
    explainer = Explainer(model)
    explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert explainer.decoder is not None
    assert len(trusted_layers(explainer)) == len(explainer.decoder.layers)
    return explainer


KNOBS: dict[str, dict[str, Any]] = {
    "granite": {"residual_multiplier": 0.4, "logits_scaling": 3.0},
    "cohere": {"logit_scale": 0.3},
    "arcee": {"hidden_act": "gelu"},
    "nemotron": {"hidden_act": "relu"},
}


def with_text_model(family: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """LLaVA with another language model, and its inputs."""
    config = LlavaConfig(
        text_config={**zoo.TEXT, "model_type": family, **KNOBS.get(family, {})},
        vision_config=zoo.CLIP,
        image_token_index=zoo.IMAGE,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + (parameter.ndim == 1))
    return model.to(dtype), zoo.build("llava", dtype)[1]
