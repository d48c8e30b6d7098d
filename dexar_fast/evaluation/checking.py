"""Whether a map shows what its answer rests on: eleven forwards with parts of the picture hidden."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.evaluation.asking import answered
from dexar_fast.evaluation.hiding import probabilities
from dexar_fast.evaluation.places import Places
from dexar_fast.generation.setup import Setup
from dexar_fast.methods import knobs
from dexar_fast.metrics import chance
from dexar_fast.metrics.hiding.evidence import DRAWN_AT, SHARES, Evidence
from dexar_fast.metrics.hiding.ordering import first, order
from dexar_fast.metrics.maps import Mask, is_blank
from dexar_fast.results.schema import Result


def check(
    setup: Setup,
    explanation: Result,
    *,
    draws: int = 4,
    fill: str = "blur",
    seed: int = 0,
    batch: int | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Evidence:
    """What it costs the answer to hide the top of its map, beside a centred map and random smooth ones.

    It takes 7 + `draws` forwards: the whole picture, three shares of the map and of the centred one, and the draws.

    Args:
        setup: the `Explainer` that made the explanation, or one of the same model.
        draws: random maps, at the middle share. seed: of these, and of the order of equal values.
        fill, batch: as in `dexar_fast.evaluation.hiding.probabilities`. inputs: as in `asking.answered`.
    Raises:
        InputError: as both, or a map that has no place in the pictures.
    """
    knobs.whole("draws", draws, 1)
    knobs.seed(seed)
    with answered(setup, explanation, inputs) as asked:
        places, values = Places(explanation, asked.grids), explanation.sequence_map.numpy()
        found = probabilities(asked, [places.masks(each) for each in _hidden(places, values, draws, seed)], fill, batch)
    logarithms = np.log(found)
    falls = logarithms[0] - logarithms[1:]
    whole, shares = falls.sum(1).tolist(), len(SHARES)
    return Evidence(
        fill=fill,
        shares=list(SHARES),
        falls=whole[:shares],
        centre=whole[shares : 2 * shares],
        random=whole[2 * shares :],
        token_falls=falls[:shares].tolist(),
        blank=is_blank(values),
    )


def _hidden(places: Places, values: NDArray[np.floating], draws: int, seed: int) -> list[Mask]:
    """Nothing; the shares of the map, then of a centred one; the middle share of random ones. Each bool [P]."""
    rng = np.random.default_rng(seed)
    own, centre = order(places.of(values), seed), order(places.drawn(chance.centred), seed)
    random = [order(places.drawn(partial(chance.random_smooth, rng=rng)), seed) for _ in range(draws)]
    counts = [round(share * places.count) for share in SHARES]
    ranked = [first(each, count) for each in (own, centre) for count in counts]
    return [np.zeros(places.count, bool), *ranked, *(first(each, counts[DRAWN_AT]) for each in random)]
