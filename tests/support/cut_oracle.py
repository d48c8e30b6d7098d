"""The brute force of types_oracle.py for decoders of every kind: the lens of a layer is the model cut off behind it.

Each attention layer has one whole eager forward of prompt and answer, through the model's own eager function under the
name "eager", so that masks by head, indices, sinks and biases are those that it applies itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import oracle
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel
from types_oracle import layer_of, list_of

Inputs = dict[str, Tensor]
FUNCTION = "eager_attention_forward"
MASKED = -1e30  # far above the lowest float, far below every score


class Call(NamedTuple):
    """One softmax over the sequence."""

    module: nn.Module
    attention: Tensor  # [1, H, S, S] in the graph, without what a sink takes
    seen: Tensor  # [1, H, S, S] bool: the keys that each query reads


def expected(model: PreTrainedModel, inputs: Inputs, target_ids: Tensor) -> dict[str, Tensor]:
    """Token maps, weights and scores by the definitions, for `target_ids` [T]; heads that a layer lacks are 0."""
    gradients = gradients_of(model, inputs, target_ids)
    visual = oracle._is_visual(model, inputs["input_ids"][0], gradients.shape[-1])
    maps, text = gradients[..., visual], gradients[..., ~visual]
    return oracle._combine(maps.amax(-1), text.amax(-1), maps, maps, "none")


def gradients_of(model: PreTrainedModel, inputs: Inputs, target_ids: Tensor) -> Tensor:
    """G [T, L, H, P + T] of the layers that attend, 0 at keys that p_t does not read."""
    prompt = inputs["input_ids"].shape[1]
    full = oracle.full_sequence(model, inputs, target_ids)
    lenses = visited if hasattr(model.config.get_text_config(decoder=True), "loop_num_passes") else cut
    found = [
        _rows(logits[0, prompt - 1 :], call, prompt - 1, target_ids) for logits, call in lenses(model, full, prompt)
    ]
    heads = max(rows.shape[1] for rows in found)
    return torch.stack([functional.pad(rows, (0, 0, 0, heads - rows.shape[1])) for rows in found], 1)


def cut(model: PreTrainedModel, full: Inputs, prompt: int) -> Iterator[tuple[Tensor, Call]]:
    """Of each layer that attends: the logits [1, S, V] of the decoder that ends with it, and its call."""
    for layer in [layer_of(model, call.module) for call in run(model, full, prompt)[1]]:
        with cut_behind(model, layer):
            logits, calls = run(model, full, prompt)
        yield logits, calls[-1]


def _rows(logits: Tensor, call: Call, first: int, target_ids: Tensor) -> Tensor:
    """[T, H, S]: of the logit at p_t alone, by the row of A at p_t alone."""
    rows = []
    for t, target in enumerate(target_ids):
        (gradient,) = torch.autograd.grad(logits[t, target], call.attention, retain_graph=True)
        rows.append(gradient[0, :, first + t].double().relu() * call.seen[0, :, first + t])
    return torch.stack(rows)


def run(model: PreTrainedModel, full: Inputs, prompt: int, change: Callable[[Tensor], Tensor] = lambda x: x) -> Any:
    """The logits [1, S, V] of one eager forward, and its calls; `change` takes each A and gives the one to use."""
    with eager(model, change) as calls, torch.enable_grad():
        return forward(model, full, prompt), list(calls)


def forward(model: PreTrainedModel, full: Inputs, prompt: int) -> Tensor:
    """Without a cache, unless the mask is one that a cache makes: a window over the answer beside the whole prompt."""
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    references = [layer for layer in cache.layers if hasattr(layer, "set_prefill_length")]
    for layer in references:
        layer.set_prefill_length(prompt)
    logits: Tensor = (model(**full, cache=cache) if references else model(**full, use_cache=False)).logits
    return logits


@contextmanager
def cut_behind(model: PreTrainedModel, layer: nn.Module) -> Iterator[None]:
    """Inside the block the decoder ends with this layer."""
    layers = list_of(model, layer)
    members = list(layers)
    owner, name = next((owner, name) for owner in model.modules() for name, m in owner.named_children() if m is layers)
    try:
        setattr(owner, name, nn.ModuleList(members[: members.index(layer) + 1]))
        yield
    finally:
        setattr(owner, name, layers)


def visited(model: PreTrainedModel, full: Inputs, prompt: int) -> list[tuple[Tensor, Call]]:
    """The same for decoders of residual blocks, whose layers may run several times: their lens written out by hand."""
    decoder: Any = model.get_decoder()
    visits: list[tuple[Tensor, Tensor]] = []

    def visit(layer: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        hidden, blocks, *_ = args
        if layer.is_block_boundary:
            blocks = torch.cat([blocks, hidden.unsqueeze(-2)], -2)
        visits.append((blocks, output))

    handles = [layer.register_forward_hook(visit) for layer in decoder.layers]
    try:
        own, calls = run(model, full, prompt)
    finally:
        for handle in handles:
            handle.remove()
    with eager(model):
        ends = [decoder.norm(decoder.final_input(blocks, hidden)[0]).to(hidden.dtype) for blocks, hidden in visits]
    head: Any = model
    logits = [head.logit_softcap(head.lm_head(end).float()) for end in ends]
    assert torch.equal(logits[-1], own)
    return list(zip(logits, calls, strict=True))


@contextmanager
def eager(model: PreTrainedModel, change: Callable[[Tensor], Tensor] = lambda x: x) -> Iterator[list[Call]]:
    """The text decoder runs its own eager function, softmax in the model's dtype, and every call is kept."""
    calls: list[Call] = []
    decoder = [module for module in model.get_decoder().modules() if hasattr(module, "layer_idx")]
    files = {sys.modules[type(module).__module__] for module in decoder}
    config = model.config.get_text_config(decoder=True)
    own, config._attn_implementation = config._attn_implementation, "eager"
    patches = [
        patch.object(file, FUNCTION, _kept(getattr(file, FUNCTION), set(decoder), calls, change)) for file in files
    ]
    try:
        for each in patches:
            each.start()
        yield calls
    finally:
        for each in patches:
            each.stop()
        config._attn_implementation = own


def _kept(own: Any, decoder: set[nn.Module], calls: list[Call], change: Callable[[Tensor], Tensor]) -> Any:
    def attend(module: nn.Module, *args: Any, **more: Any) -> tuple[Tensor, Tensor]:
        if module not in decoder:
            return own(module, *args, **more)
        scores: list[Tensor] = []

        def softmax(x: Tensor, dim: int = -1, **_: Any) -> Tensor:
            scores.append(x.detach())
            return x.softmax(dim)

        with (
            patch.object(functional, "softmax", softmax),
            patch.object(functional, "dropout", lambda x, **_: change(x)),
        ):
            output, attention = own(module, *args, **more)
        calls.append(Call(module, attention, scores[0][..., : attention.shape[-1]] > MASKED))
        return output, attention

    return attend
