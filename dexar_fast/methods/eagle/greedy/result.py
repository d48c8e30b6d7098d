"""The result of a search: the order of the regions, and the scores on the way."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dexar_fast.methods.eagle.greedy.scores import Weights


@dataclass(frozen=True)
class Curves:
    """N regions in order, the most important first, and n tokens' probabilities. Entry k: the first k + 1 regions.

    Attributes:
        order: [N] int64, the region at each place.
        insertion: [N, n] float32, with only the first k + 1 regions revealed.
        deletion: [N, n] float32, with only these hidden.
        objective: [N] float32, mean over tokens of lambda1 * insertion + lambda2 * (1 - deletion).
        empty, full: [n] float32, with no region revealed, and with all.
        weights: lambda1 and lambda2.
        tail: how many regions at the end were placed from behind.
    """

    order: Tensor
    insertion: Tensor
    deletion: Tensor
    objective: Tensor
    empty: Tensor
    full: Tensor
    weights: Weights
    tail: int


@dataclass(frozen=True)
class SearchResult(Curves):
    """Curves, and what finding them took.

    Attributes:
        verified: [N] bool, whether the region at each place was the best of all that were left there. A guided search
            estimates it: the others were scored too, or predicted to be worse by more than its predictions' error
            (root mean square so far). The share of True says how close the order is to an exact search.
        forwards: pictures that the algorithm asks for.
        evaluated: pictures that had to be evaluated: no picture twice.
    """

    verified: Tensor
    forwards: int
    evaluated: int
