"""Insertion and deletion: how an answer's probability grows as a picture is revealed in order of a map, or falls as it
is hidden. Pure functions of the probabilities on the way."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import InputError
from dexar_fast.metrics.hiding.perturbation import trapezoid
from dexar_fast.metrics.maps import finite, truths
from dexar_fast.metrics.tokens import probabilities


class Areas(NamedTuple):
    """Insertion: higher is better. Deletion: lower is better. Highest: the greatest mean probability on the way."""

    insertion: float
    deletion: float
    highest: float


def areas(insertion: Any, deletion: Any, shares: Any) -> Areas:
    """The areas under the mean probability of an answer's tokens, over the share shown, and over the share hidden.

    One token, shares [0, .5, 1]; shown .1, .7, .9: (.4 + .8) / 2 = .6. Hidden .9, .3, .1: (.6 + .2) / 2 = .4. The
    highest: .9. Chance: one area in both, on average over random orders; a method has found what its areas are better
    than those of random smooth and centred maps by, on the same schedule. Of the highest: what the whole picture gives,
    by any order, where no part of it speaks against the answer.

    Args:
        insertion, deletion: [K + 1, n] probabilities of n tokens, from nothing shown or hidden to everything.
        shares: [K + 1], rising from 0 to 1.
    Raises:
        InputError: other shapes, no probabilities, or shares that do not rise.
    """
    shown, hidden = probabilities("insertion", insertion, 2), probabilities("deletion", deletion, 2)
    places = finite("shares", shares, 1)
    if shown.shape != hidden.shape or len(shown) != len(places) or len(places) < 2 or (np.diff(places) < 0).any():
        raise InputError(
            f"insertion {list(shown.shape)} and deletion {list(hidden.shape)} must be of the same steps and tokens, at "
            f"{len(places)} shares that rise"
        )
    mean_shown, mean_hidden = shown.mean(1), hidden.mean(1)
    return Areas(trapezoid(mean_shown, places), trapezoid(mean_hidden, places), float(mean_shown.max()))


def recorded(insertion: Any, deletion: Any, shares: Any, words: Any = None) -> Areas | None:
    """What EAGLE's script makes of the record of its own search: N uneven regions, each the best for what is measured.

    Nothing shown is taken from the end of the deletion curve, and nothing hidden from that of the insertion curve. One
    token, regions of .5 each; shown .7, .9; hidden .3, .1: insertion over [0, .5, 1] is .1, .7, .9, so .6; deletion .9,
    .3, .1, so .4. Chance: none in the record; compare methods by `areas` on one schedule.

    Args:
        insertion, deletion: [N, n], with only the first k + 1 regions shown, or hidden.
        shares: [N], the share of the picture in these. words: [n] which tokens count; None is all.
    Returns:
        None where no word counts: EAGLE leaves such samples out of its means (see `tokens.sensitive`).
    Raises:
        InputError: as `areas`.
    """
    shown, hidden = probabilities("insertion", insertion, 2), probabilities("deletion", deletion, 2)
    chosen = np.ones(shown.shape[1], bool) if words is None else truths("words", words)
    if shown.shape != hidden.shape or chosen.shape != shown.shape[1:]:
        raise InputError(f"insertion {list(shown.shape)}, deletion {list(hidden.shape)} and words {list(chosen.shape)}")
    if not chosen.any():
        return None
    curves = (_from(hidden[-1], shown)[:, chosen], _from(shown[-1], hidden)[:, chosen])
    return areas(*curves, [0, *finite("shares", shares, 1)])


def _from(start: NDArray[np.float64], curve: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([start[None], curve])
