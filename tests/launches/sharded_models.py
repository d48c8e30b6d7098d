"""Models over two devices, explained like those on one (test_launches.py)."""

from __future__ import annotations

from typing import Any

import fake_gpu
import launches
import pytest
import torch
from alike import assert_same
from sharded import spread

from dexar_fast import Explainer
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.profile.shapes import build

MODELS = ("llava-1.5-7b", "qwen2.5-vl-7b", "paligemma-3b")
# where the two layers are, what comes before them, and what comes behind
PLACES = {
    "the end elsewhere": ((True, True), True, False),
    "the last layer elsewhere": ((True, False), True, True),
    "the first layer elsewhere": ((False, True), True, True),
    "half and half": ((False, True), False, True),
    "half and half, the other way": ((True, False), True, False),
}
ANSWER = torch.arange(20, 27)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_over_two_devices_is_explained_like_one_on_one(name: str, place: str) -> None:
    """By autograd, then by tails in one forward; given and generated."""
    model, inputs_for = build(name, tiny=True, dtype=torch.float32)
    inputs, plain = inputs_for(), Explainer(model, backend="torch")
    given = plain.explain_inputs(inputs, ANSWER)
    written = plain.explain_inputs(inputs, max_new_tokens=5, do_sample=False)
    with fake_gpu.on_the_device(), launches.trusted():
        explainer = Explainer(spread(model, *PLACES[place]))
        placed = {key: x.to(model.device) for key, x in inputs.items()}
        for _ in range(3):
            assert_same(explainer.explain_inputs(placed, ANSWER), given, 1e-5)
        assert_same(explainer.explain_inputs(placed, max_new_tokens=5, do_sample=False), written, 1e-4)
    assert set(explainer.decoder.trusted_tails) == {0, 1}


@pytest.mark.parametrize(
    "knobs", [{"mode": "official"}, {"text_relevance": True}, {"map_filter": ("rank", 5)}], ids=str
)
def test_knobs_hold_over_two_devices(knobs: dict[str, Any]) -> None:
    model, inputs_for = build("llava-1.5-7b", tiny=True, dtype=torch.float32)
    inputs = inputs_for()
    expected = Explainer(model, backend="torch", **knobs).explain_inputs(inputs, ANSWER)
    with fake_gpu.on_the_device(), launches.trusted():
        explainer = Explainer(spread(model, *PLACES["the first layer elsewhere"]), **knobs)
        placed = {key: x.to(model.device) for key, x in inputs.items()}
        for _ in range(2):
            assert_same(explainer.explain_inputs(placed, ANSWER), expected, 1e-5)


def test_a_layer_that_is_itself_over_two_devices_goes_through_autograd() -> None:
    model, inputs_for = build("llava-1.5-7b", tiny=True, dtype=torch.float32)
    inputs, last = inputs_for(), model.model.language_model.layers[1]
    expected = Explainer(model, backend="torch").explain_inputs(inputs, ANSWER)
    with fake_gpu.on_the_device(), launches.trusted():
        explainer = Explainer(spread(model, (True, True), True, True, apart=last.mlp))
        for _ in range(2):
            assert_same(explainer.explain_inputs(inputs, ANSWER), expected, 1e-5)
    assert set(explainer.decoder.trusted_tails) == {0}


METHODS = ("attention", "attention-gradient", "rollout", "relevancy", "tam", "llava-cam", "input-gradient", "attn-lrp")


@pytest.mark.parametrize("method", METHODS)
def test_other_methods_hold_over_two_devices(method: str) -> None:
    model, inputs_for = build("llava-1.5-7b", tiny=True, dtype=torch.float32)
    inputs = inputs_for()
    expected = Explainer(model, backend="torch", method=method).explain_inputs(inputs, ANSWER)
    with fake_gpu.on_the_device(), launches.trusted():
        found = Explainer(spread(model, *PLACES["half and half"]), method=method).explain_inputs(inputs, ANSWER)
    largest = float(expected.token_maps.abs().max())
    torch.testing.assert_close(found.token_maps, expected.token_maps, rtol=0, atol=1e-5 * largest)


def test_batches_and_pools_hold_over_two_devices() -> None:
    """A pool keeps each layer's slots where the layer is; packed rows and prompts that were met before."""
    model, inputs_for = build("llava-1.5-7b", tiny=True, dtype=torch.float32)
    asked = [inputs_for(), inputs_for(70)]
    plain = Explainer(model, backend="torch")
    expected = [plain.explain_inputs(inputs, ANSWER) for inputs in asked]
    with fake_gpu.on_the_device(), launches.trusted():
        spread(model, *PLACES["half and half, the other way"])
        placed = [{key: x.to(model.device) for key, x in inputs.items()} for inputs in asked]
        pooled = Explainer(model, pool=KVPool(512))
        for _ in range(2):
            found = Explainer(model).explain_batch_inputs([(inputs, ANSWER) for inputs in placed])
            for one, wanted in zip(found, expected, strict=True):
                assert_same(one, wanted, 1e-5)
            assert_same(pooled.explain_inputs(placed[0], ANSWER), expected[0], 1e-5)
