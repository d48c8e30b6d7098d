"""Sanity checks: what is left of a map once the weights are random, and how much of it any other picture gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from dexar_fast.errors import InputError, ModelError
from dexar_fast.generation.setup import Setup
from dexar_fast.methods import knobs
from dexar_fast.metrics.agreement import rank_correlations

Explain = Callable[[], Any]
"""Gives the map [N] of one answer, the same request each time; a given answer, since random weights write another."""


@dataclass(frozen=True)
class Cascade:
    """How alike a map stays while the decoder's layers become random, one after the other, the last first.

    Attributes:
        layers: [L], the layer that became random beside those before it. The lens and the vision tower stay.
        correlations: [L], of the map then with that of the real weights (Spearman's): near 0 once the map depends on
            what the model has learnt; 1 for a map that does not.
    """

    layers: list[int]
    correlations: list[float]


def cascade(setup: Setup, explain: Explain, *, seed: int = 0) -> Cascade:
    """Shuffles the weights of each layer among themselves, and explains again. The model is left as it was.

    Nothing else may use the model meanwhile.

    Args:
        setup: an `Explainer` that has explained something, so that its decoder is known.
        explain: of the same explainer, such as `lambda: ex.explain(image, prompt, answer).sequence_map`.
    Raises:
        InputError: a decoder that is not known yet; as `rank_correlation`. ModelError: weights that cannot be shuffled.
    """
    if setup.decoder is None:
        raise InputError("the decoder of this explainer is not known yet: explain something with it first")
    real, found = _map(explain), []
    layers = list(enumerate(setup.decoder.layers))[::-1]
    generator = torch.Generator().manual_seed(knobs.seed(seed))
    with _restoring([layer for _, layer in layers]):
        for _, layer in layers:
            _shuffle(layer, generator)
            found.append(_map(explain))
    return Cascade([number for number, _ in layers], rank_correlations(real, found).tolist())


def of_other_pictures(explain: Callable[[Image.Image], Any], pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
    """[K - 1], the rank correlation of the first picture's map with those of the others, of one size and one answer.

    Near 0 for a map that depends on its picture; near 1 for one that any picture gets. Objects stand in the middle of
    photographs: part of it is that of a centred map.

    Args:
        explain: gives the map [N] of a picture.
    Raises:
        InputError: fewer than two pictures; as `rank_correlation`.
    """
    if len(pictures) < 2:
        raise InputError("there is no other picture to compare with")
    first, *others = (np.asarray(explain(picture)) for picture in pictures)
    return rank_correlations(first, others)


def _map(explain: Explain) -> NDArray[np.floating]:
    return np.asarray(explain())


@contextmanager
def _restoring(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Puts the layers' weights back at the end; they are kept on the CPU meanwhile."""
    kept = [(weight, weight.detach().cpu().clone()) for layer in layers for weight in layer.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in kept:
                weight.copy_(value)


@torch.no_grad()
def _shuffle(layer: nn.Module, generator: torch.Generator) -> None:
    for weight in layer.parameters():
        if not weight.is_floating_point():
            raise ModelError(f"weights of {weight.dtype} (quantised ones) cannot be shuffled: load the model without")
        weight.copy_(_shuffled(weight, generator))


def _shuffled(weight: Tensor, generator: torch.Generator) -> Tensor:
    places = torch.randperm(weight.numel(), generator=generator)
    return weight.flatten()[places.to(weight.device)].view_as(weight)
