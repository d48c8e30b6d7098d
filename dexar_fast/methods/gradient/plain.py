"""The gradient of a token's logit at the visual embeddings: its length, and its product with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.gradient.forward import maps_of, recorded, unchanged

LENGTH = (
    "Map value of a patch, in logits for a unit of its embedding: the length of the gradient of the model's logit of "
    "the token with respect to the patch's embedding."
)
_SENSITIVITY = "It says how fast the logit changes with a patch, up or down, not what the patch gave to it."
PRODUCT = (
    "Map value of a patch, in logits: its embedding \N{MULTIPLICATION SIGN} the gradient of the model's logit of the "
    "token, summed over channels, 0 where negative."
)
_LIMIT = "It is a first-order estimate: taking the patch away may change the logit by another amount."


@dataclass(frozen=True)
class InputGradient:
    """map[t, j] = | d o[v_t] / d x_j |_2, x_j the embedding of visual token j and o the model's own logits.

    One forward serves all tokens; each has a backward of its own. Source: arXiv 1312.6034, on embeddings.
    """

    name: ClassVar[str] = "input-gradient"
    contrasts: ClassVar[bool] = True

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N], at least 0. Raises as `forward.recorded`."""
        found = recorded(asked, unchanged)
        return maps_of(asked, [length(each) for each in found.gradients()], (LENGTH, _SENSITIVITY))


@dataclass(frozen=True)
class GradientXInput:
    """map[t, j] = relu( < x_j, d o[v_t] / d x_j > ), x_j the embedding of visual token j (arXiv 1605.01713).

    One forward serves all tokens; each has a backward of its own.
    """

    name: ClassVar[str] = "gradient-x-input"
    contrasts: ClassVar[bool] = True

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N], at least 0. Raises as `forward.recorded`."""
        found = recorded(asked, unchanged)
        shares = [product(found.leaves, each) for each in found.gradients()]
        return maps_of(asked, [share.relu() for share in shares], (PRODUCT, _LIMIT))


def length(gradients: Sequence[Tensor]) -> Tensor:
    """[N]: of the gradient [N, ...] of all leaves together, float32 or better."""
    return torch.stack([_rows(each).square().sum(1) for each in gradients]).sum(0).sqrt()


def product(values: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """[N]: values times gradients, [N, ...] of each leaf, summed over all but N, float32 or better."""
    pairs = zip(values, gradients, strict=True)
    return torch.stack([(_rows(x.detach()) * _rows(g)).sum(1) for x, g in pairs]).sum(0)


def _rows(values: Tensor) -> Tensor:
    return values.flatten(1).to(torch.promote_types(values.dtype, torch.float32))
