"""The brute force of oracle.py where a layer may attend to several sets of keys: one row of scores for each softmax.

Autograd over one whole forward of prompt and answer, without a cache, in the model's own eager attention. A call is a
softmax inside the decoder's layers; the lens of its layer is the model itself, run with that layer's output in place of
its last one's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import types_oracle
from torch import Tensor, nn
from transformers import PreTrainedConfig
from types_beyond import Beyond


@dataclass(frozen=True)
class Call:
    """One softmax: its layer, its A [..., H, Q, K] in the graph, and which keys each query may see [Q, K]."""

    layer: nn.Module
    attention: Tensor
    seen: Tensor


def expected(beyond: Beyond, target_ids: Tensor) -> dict[str, Tensor]:
    """Scores and weights [T, calls, H], maps [T, N] and token weights [T] of the definitions, for `target_ids` [T]."""
    rows = gradients(beyond, target_ids)
    scores = {name: torch.zeros(len(target_ids), len(rows), rows[0][0].shape[1]).double() for name in ("image", "text")}
    maps = []
    for index, (gradient, seen) in enumerate(rows):
        visual = beyond.visual(gradient.shape[-1], len(target_ids))
        reached = gradient * seen[:, None]
        for name, keys in {"image": visual, "text": ~visual}.items():
            scores[name][:, index] = (reached * keys).amax(-1)  # nothing is below 0
        maps.append(reached[..., visual] if visual.any() else None)
    return combined(scores["image"], scores["text"], maps)


def combined(visual_scores: Tensor, text_scores: Tensor, maps: list[Tensor | None]) -> dict[str, Tensor]:
    """Equations 4 to 6, where only some calls have visual keys: maps [T, H, N] for each that has."""
    head_weights = (visual_scores - text_scores).relu()
    with_maps = {index: each for index, each in enumerate(maps) if each is not None}
    weighted = [(head_weights[:, index, :, None] * each).sum(1) for index, each in with_maps.items()]
    return {
        "visual_scores": visual_scores,
        "text_scores": text_scores,
        "head_weights": head_weights,
        "token_weights": (visual_scores.amax((1, 2)) - text_scores.amax((1, 2))).relu(),
        "token_maps": torch.stack(weighted).sum(0),
        "unfiltered_token_maps": torch.stack([each.sum(1) for each in with_maps.values()]).sum(0),
    }


def gradients(beyond: Beyond, target_ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each call G [T, H, K], and which keys p_t may see [T, K]."""
    rows = slice(beyond.first, beyond.first + len(target_ids))
    with torch.enable_grad():
        calls, outputs, _ = record(beyond, target_ids)
        found = []
        for call in calls:
            with types_oracle.instead(last_layer(beyond), outputs[call.layer]):
                logits = forward(beyond, target_ids)[0, rows]
            found.append((torch.stack(_rows(logits, call.attention, target_ids, beyond.first)), call.seen[rows]))
    return found


def _rows(logits: Tensor, attention: Tensor, target_ids: Tensor, first: int) -> list[Tensor]:
    picked = [logits[t, v] for t, v in enumerate(target_ids.tolist())]
    whole = [torch.autograd.grad(logit, attention, retain_graph=True)[0] for logit in picked]
    return [each.flatten(0, -3)[:, first + t].double().relu() for t, each in enumerate(whole)]


def record(beyond: Beyond, target_ids: Tensor) -> tuple[list[Call], dict[nn.Module, Tensor], Tensor]:
    """The calls of one forward in the order in which they are made, what each layer gives, and the logits [1, S, V]."""
    with eager(beyond), recorded(beyond) as calls, kept(beyond) as outputs:
        logits = forward(beyond, target_ids)
    return calls, outputs, logits


def forward(beyond: Beyond, target_ids: Tensor) -> Tensor:
    """[1, S, V]. The classes add to their inputs' embeddings in place: each forward gets inputs of its own."""
    full = {name: each.clone() for name, each in beyond.answered(target_ids).items()}
    logits: Tensor = beyond.model(**full, use_cache=False).logits
    return logits


@contextmanager
def eager(beyond: Beyond) -> Iterator[None]:
    """While its decoder runs, the model attends there by the formula that its own file holds."""
    held = [getattr(module, "config", None) for layer in members(beyond) for module in layer.modules()]
    configs = list({id(config): config for config in held if isinstance(config, PreTrainedConfig)}.values())
    own = [config._attn_implementation for config in configs]

    def switch(*_: Any) -> None:
        for config in configs:
            config._attn_implementation_internal = "eager"  # the property would take the towers along

    def restore(*_: Any) -> None:
        for config, implementation in zip(configs, own, strict=True):
            config._attn_implementation_internal = implementation

    around = beyond.model.get_submodule(beyond.layers[0].split(".")[0])  # it makes the masks
    with hooked([around], switch, restore):
        yield
    restore()


Changed = Callable[[int, Tensor], Tensor]  # A of the n-th call, in the way that the rest of the forward shall see it


@contextmanager
def recorded(beyond: Beyond, changed: Changed = lambda _, attention: attention) -> Iterator[list[Call]]:
    """Keep every softmax inside the decoder's layers, in the scores' own dtype (eager attention rounds to float32)."""
    calls: list[Call] = []
    inside: list[nn.Module] = []
    own = nn.functional.softmax

    def softmax(scores: Tensor, dim: int = -1, **more: Any) -> Tensor:
        if not inside:
            return own(scores, dim, **more)
        attention = changed(len(calls), scores.softmax(dim))
        if not attention.requires_grad and torch.is_grad_enabled():
            attention.requires_grad_()  # frozen weights
        seen = (scores > torch.finfo(torch.float32).min / 2).flatten(0, -3).any(0)
        calls.append(Call(inside[-1], attention, seen))
        return attention

    entered = hooked(members(beyond), lambda layer, _: inside.append(layer), lambda *_: inside.clear())
    with entered, patch.object(nn.functional, "softmax", softmax):
        yield calls


@contextmanager
def kept(beyond: Beyond) -> Iterator[dict[nn.Module, Tensor]]:
    """What each of the decoder's layers gives."""
    outputs: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, _args: Any, output: Any) -> None:
        outputs[layer] = output[0] if isinstance(output, tuple) else output

    with hooked(members(beyond), lambda *_: None, keep):
        yield outputs


@contextmanager
def hooked(modules: list[nn.Module], before: Callable[..., None], after: Callable[..., Any]) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(before) for module in modules]
    handles += [module.register_forward_hook(after) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def members(beyond: Beyond) -> list[nn.Module]:
    """The decoder's layers."""
    return [layer for name in beyond.layers for layer in beyond.model.get_submodule(name)]


def last_layer(beyond: Beyond) -> nn.Module:
    return beyond.model.get_submodule(beyond.layers[0])[-1]


def lens_logit(beyond: Beyond, target_ids: Tensor, t: int, call: Call, changed: Changed) -> float:
    """o_l[v_t] for the layer that holds the call, where `changed` may move the A that it reads: no gradient at all."""
    with torch.no_grad(), eager(beyond), recorded(beyond, changed), kept(beyond) as outputs:

        def from_there(_module: nn.Module, _args: Any, output: Any) -> Any:
            hidden = outputs[call.layer]
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        with hooked([last_layer(beyond)], lambda *_: None, from_there):
            return float(forward(beyond, target_ids)[0, beyond.first + t, target_ids[t]])


def difference(
    beyond: Beyond, target_ids: Tensor, t: int, calls: list[Call], at: tuple[int, int, int], step: float
) -> float:
    """d o_l[v_t] / d A_c[h, j] at p_t by two forwards, for at = (c, h, j)."""
    index, head, key = at

    def moved(by: float, number: int, attention: Tensor) -> Tensor:
        attention = attention.clone()
        if number == index:
            attention.view(-1, *attention.shape[-2:])[head, beyond.first + t, key] += by
        return attention

    up, down = (lens_logit(beyond, target_ids, t, calls[index], partial(moved, by)) for by in (step, -step))
    return (up - down) / (2 * step)
