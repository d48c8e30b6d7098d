"""How far a map agrees with what happens: with the fall of the answer's probability where a patch is hidden alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.evaluation.asking import answered
from dexar_fast.evaluation.hiding import probabilities
from dexar_fast.evaluation.places import Places
from dexar_fast.generation.setup import Setup
from dexar_fast.methods import knobs
from dexar_fast.metrics.agreement import rank_correlation, top_share
from dexar_fast.metrics.maps import Mask
from dexar_fast.results.schema import Result
from dexar_fast.vision.grid import Grid

TOP = 0.2  # of the patches


@dataclass(frozen=True)
class Agreement:
    """A map beside occlusion, over the patches that the model sees.

    Attributes:
        fill: what stands where a patch is hidden.
        falls: [R] nats, by how much the answer's log-probability falls without each patch.
        means: [R], the map's mean over each patch.
        rank_correlation, top_share: of the two (`metrics.agreement`); the share is a fifth.
    """

    fill: str
    falls: list[float]
    means: list[float]
    rank_correlation: float
    top_share: float


def agreement(
    setup: Setup,
    explanation: Result,
    *,
    side: int = 6,
    fill: str = "blur",
    batch: int | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Agreement:
    """Hides each of side x side patches of each picture alone. It takes side^2 forwards a picture, and one.

    The arguments and errors are those of `dexar_fast.evaluation.checking.check`; LibraryError without scipy.
    """
    how: dict[str, Any] = {"side": side, "fill": fill, "batch": batch, "inputs": inputs}
    return agreement_with(occluded(setup, explanation, **how), explanation)


@dataclass(frozen=True)
class Occluded:
    """What hiding each patch costs an answer, whatever the map: `Agreement` says what the fields are.

    Attributes:
        grids: where the model sees the pictures. regions: [R], bool [P] each, the patches of the P pixels that it sees.
        falls: [R] nats.
    """

    fill: str
    grids: Sequence[Grid]
    regions: list[Mask]
    falls: NDArray[np.float64]


def occluded(
    setup: Setup,
    explanation: Result,
    *,
    side: int = 6,
    fill: str = "blur",
    batch: int | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Occluded:
    """The part of `agreement` that runs the model; arguments and errors are the same."""
    knobs.whole("side", side, 2)
    with answered(setup, explanation, inputs) as asked:
        places = Places(explanation, asked.grids)
        patches = places.patches(side)
        regions = [patches == patch for patch in np.unique(patches)]
        hidden = [np.zeros(places.count, bool), *regions]
        found = np.log(probabilities(asked, [places.masks(each) for each in hidden], fill, batch)).sum(1)
    return Occluded(fill, asked.grids, regions, found[0] - found[1:])


def agreement_with(found: Occluded, explanation: Result) -> Agreement:
    """A map of the same answer and pictures beside what was found. Raises as `agreement`."""
    values = Places(explanation, found.grids).of(explanation.sequence_map.numpy())
    means = np.array([values[region].mean() for region in found.regions])
    scores = rank_correlation(means, found.falls), top_share(means, found.falls, TOP)
    return Agreement(found.fill, found.falls.tolist(), means.tolist(), *scores)
