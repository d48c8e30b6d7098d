"""Other ways to the same arrays: what people run today, written as plainly as they run it.

Each takes a Subject and returns the arrays of `gates.COMPARED`, so that a gate can hold it to the explanation before
it is timed. Written from the definitions of METHOD.md; nothing of the engine is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from bench.subjects import Subject
from dexar_fast.model.cache import to_forward

Arrays = dict[str, Tensor]
EAGER, FUSED = "bench_eager", "bench_sdpa"


def authors(subject: Subject) -> Arrays:
    """The authors' loop: per token one eager forward of all tokens so far with its graph, one backward per layer."""
    rows = []
    for t, target in enumerate(subject.targets):
        with recording(subject.model, EAGER) as seen, torch.enable_grad():
            subject.model(**subject.whole(t), use_cache=False)
        rows.append(_attention_gradients(subject.model, seen, int(target)))
    return combined(_padded(rows), subject)


def cached(subject: Subject) -> Arrays:
    """The same, token by token over a KV cache: one query with its graph, one backward per layer."""
    model, cache, rows = subject.model, DynamicCache(), []
    ids = torch.cat([subject.inputs["input_ids"][0], subject.targets])
    with torch.no_grad():
        model(**_without_last(subject.inputs), **to_forward(model, cache), use_cache=True, logits_to_keep=1)
    for t, target in enumerate(subject.targets):
        query = ids[None, subject.prompt - 1 + t, None]
        with recording(model, EAGER) as seen, torch.enable_grad():
            model(input_ids=query, **to_forward(model, cache), use_cache=True)
        rows.append(_attention_gradients(model, seen, int(target)))
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
    return combined(_padded(rows), subject)


def full_length(subject: Subject) -> Arrays:
    """One fused forward of the whole sequence with its graph, one full-length backward per layer for all tokens."""
    model, tokens = subject.model, len(subject.targets)
    with recording(model, FUSED) as seen, torch.enable_grad():
        model(**subject.whole(tokens - 1), use_cache=False, logits_to_keep=1)
    queries = slice(subject.prompt - 1, subject.prompt - 1 + tokens)
    layers = []
    for output, value, hidden in zip(seen.outputs, seen.values, seen.hidden, strict=True):
        logits = lens(model, hidden[0, queries]).gather(1, subject.targets[:, None])
        (u,) = torch.autograd.grad(logits.sum(), output, retain_graph=True)  # [1, S, H, D]
        value = value[0].repeat_interleave(u.shape[2] // value.shape[1], 0)  # [H, S, D]
        layers.append(torch.einsum("thd,hsd->ths", u[0, queries], value.detach()).relu())
    gradients = torch.stack(layers, 1)  # [T, L, H, S]
    positions = torch.arange(gradients.shape[-1], device=gradients.device)
    later = positions > torch.arange(queries.start, queries.stop, device=gradients.device)[:, None]
    return combined(gradients.masked_fill(later[:, None, None], 0), subject)


def combined(gradients: Tensor, subject: Subject) -> Arrays:
    """Scores, head weights and maps (METHOD.md section 3) from G [T, L, H, S], 0 where a key is not attended to."""
    visual = torch.zeros(gradients.shape[-1], dtype=torch.bool, device=gradients.device)
    visual[subject.visual] = True
    maps = gradients[..., visual]
    visual_scores, text_scores = maps.amax(-1), gradients[..., ~visual].amax(-1)
    weights = (visual_scores - text_scores).relu()
    return {
        "visual_scores": visual_scores,
        "text_scores": text_scores,
        "head_weights": weights,
        "token_maps": torch.einsum("tlh,tlhn->tn", weights, maps),
        "unfiltered_token_maps": maps.sum((1, 2)),
    }


def lens(model: Any, hidden: Tensor) -> Tensor:
    """The logit lens [..., V] of hidden states [..., d], for families that put nothing else before their logits."""
    return model.lm_head(model.model.language_model.norm(hidden))


@dataclass
class Recording:
    """One forward, its graph kept: a tensor for every layer."""

    weights: list[Tensor] = field(default_factory=list)  # [1, H, Q, S]
    outputs: list[Tensor] = field(default_factory=list)  # [1, Q, H, D]
    values: list[Tensor] = field(default_factory=list)  # [1, H_kv, S, D]
    hidden: list[Tensor] = field(default_factory=list)  # [1, Q, d]


@contextmanager
def recording(model: Any, attention: str) -> Iterator[Recording]:
    """Runs the text decoder with one of the two attentions below and keeps what they and the layers return."""
    seen = Recording()
    AttentionInterface.register(attention, _recorded(seen, _eager if attention == EAGER else sdpa_attention_forward))
    AttentionMaskInterface.register(attention, eager_mask if attention == EAGER else sdpa_mask)

    def keep(module: Any, args: Any, output: Any) -> None:
        seen.hidden.append(output[0] if isinstance(output, tuple) else output)

    config = model.config.get_text_config(decoder=True)
    before, config._attn_implementation = config._attn_implementation, attention
    handles = [layer.register_forward_hook(keep) for layer in model.model.language_model.layers]
    try:
        yield seen
    finally:
        config._attn_implementation = before
        for handle in handles:
            handle.remove()


def _recorded(seen: Recording, attend: Callable[..., Any]) -> Callable[..., Any]:
    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any = None, **kwargs: Any) -> Any:
        mask = kwargs.pop("attention_mask", mask)
        output, weights = attend(module, query, key, value, mask, **kwargs)
        seen.outputs.append(output)
        seen.values.append(value)
        if weights is not None:
            seen.weights.append(weights)
        return output, weights

    return attention


def _eager(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, **unused: Any
) -> tuple[Tensor, Tensor]:
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    weights = (query @ key.mT * scaling + mask[..., : key.shape[2]]).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _attention_gradients(model: Any, seen: Recording, target: int) -> Tensor:
    """relu(d o_l[target] / d A_l) of the last query, [L, H, S]."""
    rows = []
    for weights, hidden in zip(seen.weights, seen.hidden, strict=True):
        logit = lens(model, hidden[0, -1])[target]
        (gradient,) = torch.autograd.grad(logit, weights, retain_graph=True)
        rows.append(gradient[0, :, -1].relu())
    return torch.stack(rows)


def _padded(rows: list[Tensor]) -> Tensor:
    """[L, H, S_t] of every token to [T, L, H, S], 0 at keys that a token does not have yet."""
    longest = rows[-1].shape[-1]
    return torch.stack([torch.nn.functional.pad(row, (0, longest - row.shape[-1])) for row in rows])


def _without_last(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    shape = inputs["input_ids"].shape
    return {name: value[:, :-1] if value.shape == shape else value for name, value in inputs.items()}
