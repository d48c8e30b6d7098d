"""Perturbation curves, insertion and deletion of an explanation: the same schedule of pixels for every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.evaluation.asking import answered
from dexar_fast.evaluation.hiding import probabilities
from dexar_fast.evaluation.places import Places
from dexar_fast.generation.setup import Setup
from dexar_fast.methods import knobs
from dexar_fast.metrics.hiding import perturbation as perplexity
from dexar_fast.metrics.hiding import revealing
from dexar_fast.metrics.hiding.ordering import STEPS, counts, first, order
from dexar_fast.metrics.maps import Mask
from dexar_fast.results.schema import Result


@dataclass(frozen=True)
class Perturbation:
    """Normalised perplexity after each removed share of what the model sees (`metrics.perturbation`).

    Attributes:
        fill: what stands in the place of what is removed.
        fractions: [10], removed: 0, .1, ... .9. positive: [10], the most important first; negative: [10], the least.
        positive_area, negative_area: their mean heights. Higher and lower are better.
    """

    fill: str
    fractions: tuple[float, ...]
    positive: list[float]
    negative: list[float]
    positive_area: float
    negative_area: float


@dataclass(frozen=True)
class Revealing:
    """The answer's probability as the picture is shown, and as it is hidden, in order of a map (`metrics.revealing`).

    Attributes:
        fill: what stands where the picture is hidden.
        shares: [K + 1], shown or hidden, from 0 to 1.
        insertion, deletion: [K + 1, T], of each token.
        areas: under the means over the tokens.
    """

    fill: str
    shares: list[float]
    insertion: list[list[float]]
    deletion: list[list[float]]
    areas: revealing.Areas


def perturbation(setup: Setup, explanation: Result, *, fill: str = "blur", **how: Any) -> Perturbation:
    """Removes the pictures in tenths, most and least important first. It takes 19 forwards.

    Args:
        how: seed, batch and inputs, as in `dexar_fast.evaluation.checking.check`, whose errors it has.
    """
    tenths = len(perplexity.FRACTIONS)

    def ways(ranked: NDArray[np.int64]) -> list[Mask]:
        steps = counts(len(ranked), tenths)[:-1]
        return [first(ranked, count) for count in steps] + [first(ranked[::-1], count) for count in steps[1:]]

    found = np.log(_scored(setup, explanation, ways, fill, **how))
    positive = perplexity.normalised_perplexity(found[:tenths])
    negative = perplexity.normalised_perplexity(np.concatenate([found[:1], found[tenths:]]))
    areas = perplexity.area(positive), perplexity.area(negative)
    return Perturbation(fill, perplexity.FRACTIONS, positive.tolist(), negative.tolist(), *areas)


def insertion_deletion(
    setup: Setup, explanation: Result, *, fill: str = "black", steps: int = STEPS, **how: Any
) -> Revealing:
    """Shows and hides the pictures in equal steps, the most important first. It takes 2 `steps` forwards.

    Args:
        how: as in `perturbation`.
    """

    def ways(ranked: NDArray[np.int64]) -> list[Mask]:
        hidden = [first(ranked, count) for count in counts(len(ranked), steps)]
        return hidden + [~each for each in hidden[1:-1]]

    found = _scored(setup, explanation, ways, fill, **how)
    deletion, between = found[: steps + 1], found[steps + 1 :]
    insertion = np.concatenate([deletion[-1:], between, deletion[:1]])
    shares = np.arange(steps + 1) / steps
    areas = revealing.areas(insertion, deletion, shares)
    return Revealing(fill, shares.tolist(), insertion.tolist(), deletion.tolist(), areas)


def _scored(
    setup: Setup,
    explanation: Result,
    ways: Callable[[NDArray[np.int64]], list[Mask]],
    fill: str,
    seed: int = 0,
    batch: int | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> NDArray[np.float64]:
    """[K, T]: the probabilities for the pixels that `ways` hides of those in the order of the map, bool [P] each."""
    with answered(setup, explanation, inputs) as asked:
        places = Places(explanation, asked.grids)
        ranked = order(places.of(explanation.sequence_map.numpy()), knobs.seed(seed))
        return probabilities(asked, [places.masks(each) for each in ways(ranked)], fill, batch)
