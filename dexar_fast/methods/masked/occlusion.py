"""Occlusion: what hiding each region alone costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.masked.game import OfRegions, maps_of

_NOTE = "Map value of a region, in nats: by how much the log-probability of the token falls where it alone is hidden."
_LIMIT = "Regions that say the same hide each other: hidden alone, neither costs much."


@dataclass(frozen=True, eq=False)
class Occlusion(OfRegions):
    """map[t, r] = relu( log p_t(all) - log p_t(all but r) ): M + 1 forwards (arXiv 1311.2901, by regions)."""

    name: ClassVar[str] = "occlusion"

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N] in nats. Raises as `game.OfRegions.game`."""
        game = self.game(asked)
        whole = torch.ones(1, len(game.seen), dtype=torch.bool)
        found = game(torch.cat([whole, ~torch.eye(len(game.seen), dtype=torch.bool)]))
        return maps_of(game.cut, game.seen, (found[0] - found[1:]).T, (_NOTE, _LIMIT), forwards=len(found))
