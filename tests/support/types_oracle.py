"""The brute force of oracle.py for any class of model: autograd over one eager forward, nothing known of its modules.

The lens of a layer is the model itself: it runs once more with that layer's output in place of its last layer's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import oracle
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

Inputs = dict[str, Tensor]
NAME = "types_eager"


def expected(model: PreTrainedModel, inputs: Inputs, target_ids: Tensor) -> dict[str, Tensor]:
    """Token maps, weights and scores by the definitions, for `target_ids` [T]."""
    gradients, attendable = _gradients(model, inputs, target_ids)
    visual = oracle._is_visual(model, inputs["input_ids"][0], gradients.shape[-1])
    maps = gradients[..., visual]
    visual_scores = oracle._scores(maps, attendable[..., visual], "max")
    text_scores = oracle._scores(gradients[..., ~visual], attendable[..., ~visual], "max")
    return oracle._combine(visual_scores, text_scores, maps, maps, "none")


def _gradients(model: PreTrainedModel, inputs: Inputs, target_ids: Tensor) -> tuple[Tensor, Tensor]:
    """G [T, L, H, S] and the attendable keys [T, L, S] of every explained position."""
    full = oracle.full_sequence(model, inputs, target_ids)
    first = inputs["input_ids"].shape[1] - 1
    gradients, attendable = [], []
    with eager(model) as calls, torch.enable_grad():
        with kept_outputs(model) as outputs:
            forward(model, full)
        attended = list(calls)
        layers = [layer_of(model, module) for module, *_ in attended]
        siblings = [list_of(model, layer) for layer in layers]
        last = [module for module in outputs if any(module in set(each) for each in siblings)][-1]
        for layer, (_, attention, seen) in zip(layers, attended, strict=True):
            with instead(last, outputs[layer]):
                logits = forward(model, full)[0, first:]
            rows = [
                torch.autograd.grad(logits[t, v], attention, retain_graph=True)[0][0, :, first + t]
                for t, v in enumerate(target_ids)
            ]
            gradients.append(torch.stack(rows).double().relu())
            attendable.append(seen[first : first + len(target_ids)])
    mask = torch.stack(attendable, 1)
    return torch.stack(gradients, 1) * mask[:, :, None], mask


def forward(model: PreTrainedModel, full: Inputs) -> Tensor:
    logits: Tensor = model(**full, use_cache=False).logits
    return logits


Call = tuple[nn.Module, Tensor, Tensor]  # who attends, A [1, H, S, S] in the graph, which keys each query sees [S, S]


@contextmanager
def eager(model: PreTrainedModel) -> Iterator[list[Call]]:
    """The text decoder attends by the formula, and every call is kept."""
    calls: list[Call] = []

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
    ) -> tuple[Tensor, Tensor]:
        groups, keys = query.shape[1] // key.shape[1], key.shape[2]
        scaling = more.get("scaling")
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scaling
        if more.get("softcap") is not None:
            scores = more["softcap"] * torch.tanh(scores / more["softcap"])
        if attention_mask is None:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
            scores = scores.masked_fill(~seen, float("-inf"))
        else:
            seen = attention_mask[0, 0, :, :keys] == 0
            scores = scores + attention_mask[..., :keys]
        attention = scores.softmax(-1)
        calls.append((module, attention, seen))
        return (attention @ value.repeat_interleave(groups, 1)).transpose(1, 2).contiguous(), attention

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    config = model.config.get_text_config(decoder=True)
    own, config._attn_implementation = config._attn_implementation, NAME
    try:
        yield calls
    finally:
        config._attn_implementation = own


def layer_of(model: PreTrainedModel, attention: nn.Module) -> nn.Module:
    """The innermost member of a ModuleList that holds it."""
    members = [member for each in _lists(model) for member in each]
    return [member for member in members if any(module is attention for module in member.modules())][-1]


def list_of(model: PreTrainedModel, layer: nn.Module) -> nn.ModuleList:
    return next(each for each in _lists(model) if any(member is layer for member in each))


def _lists(model: PreTrainedModel) -> list[nn.ModuleList]:
    """From the outside in."""
    return [module for module in model.modules() if isinstance(module, nn.ModuleList)]


@contextmanager
def kept_outputs(model: PreTrainedModel) -> Iterator[dict[nn.Module, Tensor]]:
    """What every member of a ModuleList gives, in the order in which they end."""
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _args: Any, output: Any) -> None:
        outputs.pop(module, None)
        hidden = output[0] if isinstance(output, tuple) else output
        if isinstance(hidden, Tensor):
            outputs[module] = hidden

    handles = [member.register_forward_hook(keep) for each in _lists(model) for member in each]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def instead(module: nn.Module, hidden: Tensor) -> Iterator[None]:
    """Inside the block the module gives this."""

    def replace(_module: nn.Module, _args: Any, output: Any) -> Any:
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = module.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
