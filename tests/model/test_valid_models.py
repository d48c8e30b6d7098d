"""Models as users hold them: prepared for training, wrapped, with parts ablated. Explained as they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import zoo
from alike import assert_same
from torch import nn

from dexar_fast import Explainer, Explanation
from dexar_fast.errors import ModelError

TARGETS = torch.tensor([20, 31, 44])


def explained(model: Any, inputs: zoo.Inputs) -> list[Explanation]:
    """By a fresh Explainer, by a warm one, and of the answer that the model writes."""
    explainer = Explainer(model)
    given = [explainer.explain_inputs(inputs, target_ids=TARGETS) for _ in range(2)]
    return [*given, explainer.explain_inputs(inputs, max_new_tokens=3, do_sample=False)]


def checkpointed(model: Any, use_reentrant: bool) -> None:
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})


def prepared(model: Any, precision: str) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    return Accelerator(mixed_precision=precision, cpu=True).prepare(model)


def trained(model: Any) -> None:
    _, inputs = zoo.build("llava", torch.float32)
    model.train()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()


def checkpointed_with_gradients(model: Any) -> None:
    checkpointed(model, True)
    model.enable_input_require_grads()


PREPARED: dict[str, Callable[[Any], Any]] = {
    "gradient checkpointing": lambda model: checkpointed(model, False),
    "reentrant gradient checkpointing": lambda model: checkpointed(model, True),
    "inputs that require gradients": lambda model: model.enable_input_require_grads(),
    "both": checkpointed_with_gradients,
    "frozen": lambda model: model.requires_grad_(False),
    "after a backward pass": trained,
    "accelerate, no": lambda model: prepared(model, "no"),
    "accelerate, bf16": lambda model: prepared(model, "bf16"),
    "DataParallel": nn.DataParallel,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("how", PREPARED)
def test_a_model_prepared_for_training_is_explained_as_it_was(how: str) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    expected = explained(model, inputs)
    other, _ = zoo.build("llava", torch.float32)
    held = PREPARED[how](other) or other
    forward = held.forward
    for found, wanted in zip(explained(held, inputs), expected, strict=True):
        assert_same(found, wanted)
    assert held.forward == forward


def hooked(module: nn.Module, replace: Callable[[Any, Any], Any]) -> None:
    module.register_forward_hook(lambda _, args, output: replace(args, output))


def first(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any, Any], Any]:
    return lambda _, output: (change(output[0]), *output[1:])


ABLATIONS: dict[str, tuple[Callable[[Any], None], Callable[[Any], None]]] = {
    # what a user does, and the same by operations that autograd goes through
    "MLP to 0": (
        lambda layer: hooked(layer.mlp, lambda _, x: torch.zeros_like(x)),
        lambda layer: hooked(layer.mlp, lambda _, x: x * 0),
    ),
    "MLP to a constant": (
        lambda layer: hooked(layer.mlp, lambda _, x: torch.full_like(x, 0.1)),
        lambda layer: hooked(layer.mlp, lambda _, x: x * 0 + 0.1),
    ),
    "a matrix of the MLP to 0": (
        lambda layer: hooked(layer.mlp.down_proj, lambda _, x: torch.zeros_like(x)),
        lambda layer: hooked(layer.mlp.down_proj, lambda _, x: x * 0),
    ),
    "attention to 0": (
        lambda layer: hooked(layer.self_attn, first(torch.zeros_like)),
        lambda layer: hooked(layer.self_attn, first(lambda x: x * 0)),
    ),
    "o_proj to 0": (
        lambda layer: hooked(layer.self_attn.o_proj, lambda _, x: torch.zeros_like(x)),
        lambda layer: hooked(layer.self_attn.o_proj, lambda _, x: x * 0),
    ),
    "the layer skipped": (
        lambda layer: hooked(layer, lambda args, x: args[0].clone()),
        lambda layer: hooked(layer, lambda args, x: args[0] + x * 0),
    ),
}


@pytest.mark.parametrize("what", ABLATIONS)
def test_what_a_user_ablates_has_no_gradient(what: str) -> None:
    found, expected = [], []
    for change, results in zip(ABLATIONS[what], (found, expected), strict=True):
        model, inputs = zoo.build("llava")
        change(model.model.language_model.layers[1])
        results += explained(model, inputs)
    for one, wanted in zip(found, expected, strict=True):
        assert_same(one, wanted)
    whole = explained(*zoo.build("llava"))[0]
    assert (found[0].unfiltered_token_maps - whole.unfiltered_token_maps).abs().max() > 1e-3


def test_a_model_that_cuts_its_own_gradient_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kernel without a backward does: it is no code of the user's that stands in the model's class."""
    model, inputs = zoo.build("llava")
    kind = type(model.model.language_model.layers[0].mlp)
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: forward(self, x).detach())
    with pytest.raises(ModelError, match="LlamaMLP has no gradient"):
        Explainer(model).explain_inputs(inputs, target_ids=TARGETS)


def test_a_part_that_runs_without_a_gradient_is_refused() -> None:
    """A layer's own code may leave out the gradient through its MLP, which the residual beside it hides."""
    model, inputs = zoo.build("llava")
    layer = model.model.language_model.layers[1]

    def forward(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        attended = hidden_states + layer.self_attn(layer.input_layernorm(hidden_states), **kwargs)[0]
        with torch.no_grad():
            read = layer.mlp(layer.post_attention_layernorm(attended))
        return attended + read

    layer.forward = forward
    with pytest.raises(ModelError, match=r"LlamaRMSNorm has no gradient.*runs under torch.no_grad\(\)"):
        Explainer(model).explain_inputs(inputs, target_ids=TARGETS)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


AROUND: dict[str, Callable[[], Any]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "anomaly mode": torch.autograd.detect_anomaly,
    "deterministic algorithms": deterministic,
    "float64 by default": lambda: default_dtype(torch.float64),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("mode", AROUND)
def test_modes_around_the_call_change_nothing(mode: str) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    expected = explained(model, inputs)
    with AROUND[mode]():
        found = explained(model, inputs)
    for one, wanted in zip(found, expected, strict=True):
        assert_same(one, wanted)


def test_another_default_device_is_no_matter() -> None:
    model, inputs = zoo.build("llava", torch.float32)
    explainer = Explainer(model)
    expected = explainer.explain_inputs(inputs, target_ids=TARGETS)
    with torch.device("meta"):
        for _ in range(2):
            assert_same(Explainer(model).explain_inputs(inputs, target_ids=TARGETS), expected)
            assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), expected)
