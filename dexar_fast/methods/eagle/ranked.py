"""What a search found of divided pictures, and the maps of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dexar_fast.methods.base import Maps
from dexar_fast.methods.cut.divided import Divided
from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.modality import modality
from dexar_fast.methods.eagle.saliency import region_saliency, token_saliency

NOTES = [
    "Map value of a region, from 0 to 1: how early the search places it. The search goes on with the region that, "
    "shown beside those before it, best keeps the answer's probability, and hidden with them, best destroys it.",
    "Map of a token: the same along the same order, for that token's probability alone.",
    "Weight of a token: its perception, the mean probability that showing regions adds to its lowest (EAGLE's "
    "influence of the picture). 0: it follows from the language before it.",
]


@dataclass(frozen=True)
class Ranked:
    """M of the N regions of pictures in order, for n tokens of an answer.

    Attributes:
        seen: [M] int64, ascending: the regions that the model sees. The search knows them by their place here.
        chosen: [n] int64, the tokens.
    """

    cut: Divided
    seen: Tensor
    chosen: Tensor
    found: SearchResult

    @property
    def order(self) -> Tensor:
        """[M] int64: the region at each place."""
        return self.seen[self.found.order]

    @property
    def areas(self) -> Tensor:
        """[M] float64: the share of all pixels that the first k + 1 regions cover."""
        return self.cut.areas[self.order].cumsum(0)

    def maps(self, tokens: int) -> Maps:
        """Of an answer of T tokens: [T, N]; zeros for tokens that were not chosen and regions that are not seen."""
        regions = self.cut.count
        sequence, maps, weights = torch.zeros(regions), torch.zeros(tokens, regions), torch.zeros(tokens)
        parts = modality(self.found, self.areas)
        sequence[self.seen] = region_saliency(self.found).float()
        maps[self.chosen[:, None], self.seen] = token_saliency(self.found).float()
        weights[self.chosen] = parts.perception.float()
        details = self._curves() | {
            "prior": parts.prior.tolist(),
            "perception": parts.perception.tolist(),
            "unseen_regions": sorted({*range(regions)} - {*self.seen.tolist()}),
            "forwards": self.found.evaluated,
            "share_verified": float(self.found.verified.float().mean()),
        }
        return Maps(maps, sequence, self.cut.cells, weights, NOTES, {"eagle": details})

    def _curves(self) -> dict[str, list[float]]:
        curves = {name: getattr(self.found, name).tolist() for name in ("insertion", "deletion", "empty", "full")}
        places = {"order": self.order, "areas": self.areas, "tokens": self.chosen}
        return {name: values.tolist() for name, values in places.items()} | curves
