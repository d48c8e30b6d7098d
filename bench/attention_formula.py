"""The attention methods as their formulas read: eager attention with its whole graph, one autograd.grad for each logit.

Written from the definitions, to hold `dexar_fast.methods.attention` to before it is measured; nothing of that is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.rival_methods import EAGER, lens, recording
from bench.subjects import Subject


def maps(subject: Subject) -> dict[str, Tensor]:
    """Token maps [T, N] by the name of the method."""
    model, tokens = subject.model, len(subject.targets)
    with recording(model, EAGER) as seen, torch.enable_grad():
        logits = model(**subject.whole(tokens - 1), use_cache=False).logits
    weights = [each.detach()[0] for each in seen.weights]  # [H, S, S] of each layer
    first = subject.prompt - 1
    found: dict[str, list[Tensor]] = {}
    for t, target in enumerate(subject.targets):
        row = first + t
        final = torch.autograd.grad(logits[0, row, target], seen.weights, retain_graph=True)
        own = [
            torch.autograd.grad(lens(model, hidden[0, row])[target], each, retain_graph=True)[0]
            for hidden, each in zip(seen.hidden, seen.weights, strict=True)
        ]
        rows = {
            "attention": weights[-1][:, row].mean(0),
            "attention-gradient": _net(weights, own, row),
            "attention-gradient of=final": _net(weights, final, row),
            "rollout": _composed([(each.mean(0) + torch.eye(len(each[0])).to(each)) / 2 for each in weights])[row],
            "relevancy": _relevancy(weights, final)[row],
        }
        for name, values in rows.items():
            found.setdefault(name, []).append(values[subject.visual])
    return {name: torch.stack(rows) for name, rows in found.items()}


def _net(weights: Sequence[Tensor], gradients: Sequence[Tensor], row: int) -> Tensor:
    """sum_l relu(sum_h A dA) of one row."""
    return torch.stack([(a * g[0])[:, row].sum(0).relu() for a, g in zip(weights, gradients, strict=True)]).sum(0)


def _relevancy(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """(I + E_L) ... (I + E_1), E = mean_h relu(A dA)."""
    layers = [(a * g[0]).relu().mean(0) for a, g in zip(weights, gradients, strict=True)]
    return _composed([each + torch.eye(len(each)).to(each) for each in layers])


def _composed(layers: Sequence[Tensor]) -> Tensor:
    """The product of the layers' [S, S], the last one first."""
    product = layers[0]
    for each in layers[1:]:
        product = each @ product
    return product
