"""The table of bad input: models that are being trained, taken apart by hooks, or run under torch's own switches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bad_input
import pytest
import torch
from bad_input import ANSWER, MODEL, PICTURE, PROCESSOR, PROMPT, Case, Row
from bad_models import explained, fresh

from dexar_fast import Explainer, Explanation

LAYER = "model.language_model.layers.0"
PARTS = (f"{LAYER}.mlp", f"{LAYER}.self_attn.o_proj")
Change = Callable[[Any], Any]


def like_plain(*changes: Change, by: Change = lambda model: None) -> Callable[[Path], list[Case]]:
    """Each change gives what the model gives that is changed by `by`."""
    return lambda folder: [Case(partial(of, change), partial(of, by)) for change in changes]


def of(change: Change) -> Explanation:
    return explained(fresh(change))


# Training


def checkpointing(reentrant: bool, training: bool) -> Change:
    def change(model: Any) -> None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        model.train(training)

    return change


def frozen(model: Any) -> None:
    model.requires_grad_(False)


def frozen_for_adapters(model: Any) -> None:
    frozen(model)
    model.enable_input_require_grads()


# Ablation


def hooked(hook: Callable[[torch.Tensor], torch.Tensor], *names: str) -> Change:
    def change(model: Any) -> None:
        for name in names:
            model.get_submodule(name).register_forward_hook(lambda module, args, output: hook(output))

    return change


def multiplied(name: str) -> Change:
    """Zeros that autograd follows back to what the module computed."""
    return hooked(lambda output: output * 0, name)


def ablated(folder: Path) -> list[Case]:
    return [Case(partial(of, hooked(torch.zeros_like, part)), partial(of, multiplied(part))) for part in PARTS]


def constant(folder: Path) -> list[Case]:
    """A stored activation, in the way of one that autograd follows."""
    return [
        Case(
            partial(of, hooked(lambda output: torch.full_like(output, 0.1), part)),
            partial(of, hooked(lambda output: output * 0 + 0.1, part)),
        )
        for part in PARTS
    ]


def ablated_layer() -> Explanation:
    found = of(hooked(torch.zeros_like, LAYER))
    assert not found.token_maps.any()  # nothing of the image passes it
    return found


def detached(model: Any) -> None:
    module = model.get_submodule(PARTS[0])
    own = module.forward
    module.forward = lambda x: own(x).detach()


def decorated(name: str, *switches: Callable[[], Any]) -> list[Change]:
    """As users decorate a forward."""

    def change(switch: Callable[[], Any], model: Any) -> None:
        module = model.get_submodule(name)
        module.forward = switch()(module.forward)

    return [partial(change, switch) for switch in switches]


def traced(model: Any) -> None:
    layer = model.get_submodule(LAYER)
    layer.mlp = torch.jit.trace(layer.mlp, torch.ones(1, 3, layer.mlp.down_proj.out_features))


# The switches of torch


def under(*switches: Callable[[], contextlib.AbstractContextManager[Any]]) -> Callable[[Path], list[Case]]:
    return lambda folder: [Case(partial(inside, switch), partial(explained, MODEL)) for switch in switches]


def inside(switch: Callable[[], contextlib.AbstractContextManager[Any]]) -> Explanation:
    with switch():
        return Explainer(MODEL, PROCESSOR).explain(PICTURE, PROMPT, ANSWER)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


ROWS = {
    "gradient checkpointing": Row(
        "explained",
        ("like the plain model",),
        like_plain(*(checkpointing(reentrant, training) for reentrant in (False, True) for training in (False, True))),
    ),
    "embeddings set to require a gradient, frozen weights": Row(
        "explained",
        ("like the plain model",),
        like_plain(frozen, frozen_for_adapters, lambda model: model.enable_input_require_grads()),
    ),
    "hook that returns zeros": Row("explained", ("the gradient through what it replaces is 0",), ablated),
    "hook that returns a constant or a stored activation": Row(
        "explained", ("the gradient through what it replaces is 0",), constant
    ),
    "hook that zeroes a whole layer": Row(
        "explained", ("nothing passes that layer",), lambda folder: [Case(ablated_layer)]
    ),
    "module that detaches what it computes": Row(
        "ModelError",
        ("LlamaMLP has no gradient, though its output follows its input", "detached"),
        lambda folder: [Case(partial(of, detached))],
    ),
    "forward of a whole model or layer, or of its norm in front, under no_grad": Row(
        "explained",
        ("like the plain model",),
        like_plain(
            *(change for name in ("", LAYER, f"{LAYER}.input_layernorm") for change in decorated(name, torch.no_grad))
        ),
    ),
    "forward of attention under no_grad, of a layer under inference_mode": Row(
        "ModelError",
        ("a part of LlamaDecoderLayer runs under torch.no_grad() or inference_mode()", "no gradient leads through it"),
        lambda folder: [
            Case(partial(of, change))
            for change in (
                *decorated(f"{LAYER}.self_attn", torch.no_grad, torch.inference_mode),
                *decorated(LAYER, torch.inference_mode),
            )
        ],
    ),
    "forward under torch.autocast": Row(
        "explained",
        ("like the plain model, in the dtype of its weights",),
        like_plain(
            *(
                change
                for name in ("", "model.language_model", LAYER)
                for change in decorated(name, partial(torch.autocast, "cpu", torch.bfloat16))
            )
        ),
    ),
    "module traced by torch.jit": Row("explained", ("like the plain model",), like_plain(traced)),
    "default dtype of torch that is not the model's": Row(
        "explained",
        ("in the model's own",),
        under(partial(default_dtype, torch.float64), partial(default_dtype, torch.bfloat16)),
    ),
    "no_grad, inference_mode, anomaly mode, deterministic algorithms": Row(
        "explained",
        ("as without",),
        under(torch.no_grad, torch.inference_mode, torch.autograd.detect_anomaly, deterministic),
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # torch's own
@pytest.mark.parametrize("row", ROWS)
def test_model(row: str, tmp_path: Path, model_folder: Path) -> None:
    bad_input.check(ROWS[row], tmp_path, model_folder)
