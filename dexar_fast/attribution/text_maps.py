"""Which text keys the tokens of an answer rest on: a layer scored with its text in the place of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn.functional import pad

from dexar_fast.backends.operands import HeadGroups, Keys, Layer, MapSums
from dexar_fast.backends.ops import Scoring


@dataclass(frozen=True)
class TextMaps:
    """The sums over all layers for C tokens and M text keys, on the CPU, float32 or better; 0 where a key is not read.

    R = sum over layers and heads of relu(S_txt - S_img) G, and the sum of G, over text keys.
    """

    positions: Tensor  # [M] int64, ascending
    maps: Tensor  # [C, M]
    unfiltered_maps: Tensor  # [C, M]


class TextSums:
    """Adds up the layers of one chunk as they come.

    Args:
        scoring: without the knobs of visual maps.
    """

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring
        self._swapped: dict[int, tuple[Keys, Keys]] = {}  # by the id of the keys, which layers share
        self._sums: dict[tuple[torch.device, torch.dtype], MapSums] = {}
        self._positions: Tensor

    def layer(self, u: Tensor, value: Tensor, keys: Keys | HeadGroups) -> None:
        """Takes one layer: u [C, H, D], value [H_kv, S, D]."""
        self._positions = keys.text
        kind = u.device, u.dtype
        if kind not in self._sums:
            self._sums[kind] = MapSums.zeros(u, len(keys.text))
        swapped = self._swap(keys) if isinstance(keys, Keys) else keys.map(self._swap)
        self._scoring.of(Layer(u, value, swapped), self._sums[kind])

    def maps(self) -> TextMaps:
        """All layers together."""
        sums = self._sums.values()
        return TextMaps(
            positions=self._positions.long().cpu(),
            maps=reduce(torch.add, [each.token_map.cpu() for each in sums]),
            unfiltered_maps=reduce(torch.add, [each.unfiltered_map.cpu() for each in sums]),
        )

    def _swap(self, keys: Keys) -> Keys:
        if id(keys) not in self._swapped:
            seen = keys.visual
            if isinstance(seen, slice):
                seen = torch.arange(seen.start, seen.stop, device=keys.text.device)
            self._swapped[id(keys)] = keys, Keys(keys.text, seen, keys.attendable)
        return self._swapped[id(keys)][1]


def joined(chunks: Sequence[TextMaps]) -> TextMaps:
    """The chunks of an answer, one after the other; later ones have more keys, behind the others'."""
    positions = max((chunk.positions for chunk in chunks), key=len)
    rows = ("maps", "unfiltered_maps")
    wide = {
        name: torch.cat([pad(getattr(c, name), (0, len(positions) - len(c.positions))) for c in chunks])
        for name in rows
    }
    return TextMaps(positions, **wide)
