"""Which words of an answer draw on the picture: pure functions of a number for each token."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import InputError
from dexar_fast.metrics.maps import finite, not_negative, truths

SENSITIVE = 0.2  # EAGLE's: by how much a word's probability must fall


def token_filter_ratio(attribution: Any, visual: Any) -> float:
    """The mean attribution of visual tokens over that of filler tokens (DEX-AR's test of its token filter).

    "A red circle ." with attributions [.1, .9, .6, .2] and the middle two visual: .75 / .15 = 5. Chance: 1, also for
    tokens that all get 0; inf where only the filler gets 0. Of many answers, hand over the tokens of all together.

    Args:
        attribution: [T], from 0 on: token weights, or sums of the tokens' maps. visual: [T] truth values.
    Raises:
        InputError: other shapes, NaN, a value below 0, or tokens that are all visual, or all filler.
    """
    values, marked = not_negative("attribution", attribution), truths("visual", visual)
    if values.shape != marked.shape or values.ndim != 1:
        raise InputError(f"attribution {list(values.shape)} and visual {list(marked.shape)} must be of the same tokens")
    if marked.all() or not marked.any():
        raise InputError(f"{marked.sum()} of {len(marked)} tokens are visual: the ratio takes some of both kinds")
    on_visual, on_filler = float(values[marked].mean()), float(values[~marked].mean())
    if on_filler == 0:
        return inf if on_visual else 1.0
    return on_visual / on_filler


def sensitive(full: Any, empty: Any, above: float = SENSITIVE) -> NDArray[np.bool_]:
    """[n], whether a word's probability falls by more than `above` where the picture is hidden (EAGLE, strict).

    [.9, .5, .8] with the picture and [.8, .1, .7] without, above .2: [False, True, False]. Chance: none; a word that
    the language alone gives is never sensitive.

    Raises:
        InputError: no [n] probabilities of the same words.
    """
    shown, hidden = probabilities("full", full, 1), probabilities("empty", empty, 1)
    if shown.shape != hidden.shape:
        raise InputError(f"{len(shown)} probabilities with the picture and {len(hidden)} without: one each is due")
    return shown - hidden > above


def probabilities(what: str, values: Any, dimensions: int) -> NDArray[np.float64]:
    """Numbers in [0, 1], up to rounding, as float64. Raises InputError."""
    array = finite(what, values, dimensions)
    if array.min() < 0 or array.max() > 1 + 1e-6:
        raise InputError(f"{what} reaches from {array.min():.3g} to {array.max():.3g}: probabilities are due")
    return array
