"""The maps of the attention methods by brute force: eager attention with its graph, whole [S, S] matrices, autograd."""

from __future__ import annotations

import oracle
import torch
from torch import Tensor

from dexar_fast.methods.base import Asked


class Brute:
    """One eager forward of a request, and each method's token maps [T, N] from it."""

    def __init__(self, asked: Asked) -> None:
        self.model, self.targets, self.visual = asked.model, asked.targets, asked.visual
        self.first = asked.inputs["input_ids"].shape[1] - 1
        full = oracle.full_sequence(asked.model, dict(asked.inputs), asked.targets[:-1])
        self.run = oracle.record(asked.model, full)
        self.layers = list(range(len(self.run.attention)))

    def attention(self, layers: list[int]) -> Tensor:
        """Means over heads and layers."""
        rows = [self.run.attention[layer][0, :, self.first :].detach().mean(0) for layer in layers]
        return (sum(rows) / len(layers))[:, self.visual]

    def rollout(self) -> Tensor:
        product = torch.eye(self.first + len(self.targets), dtype=torch.float64)
        for attention in self.run.attention:
            product = (attention[0].detach().mean(0) + torch.eye(len(product), dtype=torch.float64)) / 2 @ product
        return product[self.first :, self.visual]

    def relevancy(self) -> Tensor:
        return torch.stack([self._relevancy(t)[self.first + t, self.visual] for t in range(len(self.targets))])

    def _relevancy(self, t: int) -> Tensor:
        product = torch.eye(self.first + len(self.targets), dtype=torch.float64)
        for attention, gradient in zip(self.run.attention, self._final(t), strict=True):
            product = product + (attention[0].detach() * gradient[0]).relu().mean(0) @ product
        return product

    def of_final(self, layers: list[int]) -> Tensor:
        return torch.stack(
            [
                sum(self._net(layer, t, self._final(t)[layer][0, :, self.first + t]) for layer in layers)
                for t in range(len(self.targets))
            ]
        )

    def of_lens(self, layers: list[int]) -> Tensor:
        return torch.stack(
            [sum(self._net(layer, t, self._lens(layer, t)) for layer in layers) for t in range(len(self.targets))]
        )

    def _net(self, layer: int, t: int, gradient: Tensor) -> Tensor:
        """relu(sum_h A dA) at the visual keys, of dA [H, S]."""
        row = self.run.attention[layer][0, :, self.first + t].detach()
        return (row * gradient).sum(0).relu()[self.visual]

    def _lens(self, layer: int, t: int) -> Tensor:
        return oracle._gradient(self.model, self.run, layer, self.first + t, int(self.targets[t]))

    def _final(self, t: int) -> tuple[Tensor, ...]:
        """d (the model's logit of token t) / d A of every layer, [1, H, S, S] each."""
        logit = self.run.logits[0, self.first + t, self.targets[t]]
        return torch.autograd.grad(logit, self.run.attention, retain_graph=True)
