"""Pixels of a picture of which regions are hidden, put together from what each region adds to them.

A processor resizes, crops and normalises: up to the rounding of pixels to 8 bits, its output is linear in the picture.
So the pixels of any set of regions are those of the covered picture and, for each region shown, what it alone adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dexar_fast.attribution.masked.forwards import Pixels

Process = Callable[[Tensor], Pixels]  # the regions revealed, bool [N] -> the pixels that the processor makes


@dataclass(frozen=True)
class Part:
    """What one region adds to one tensor of pixels, where it adds anything."""

    places: Tensor  # [K] int64
    values: Tensor  # [K]


class Composer:
    """Makes pixels for any of N regions revealed, from N + 1 calls of the processor."""

    def __init__(self, process: Process, regions: int) -> None:
        self._covered = process(torch.zeros(regions, dtype=torch.bool))
        self._parts: list[dict[str, Part]] = []
        for region in torch.eye(regions, dtype=torch.bool):
            alone = process(region)
            self._parts.append({name: _part(alone[name], base) for name, base in self._covered.items()})

    @property
    def unseen(self) -> list[int]:
        """The regions that add nothing: cropped away, or as dark as their cover."""
        return [r for r, parts in enumerate(self._parts) if not any(len(part.places) for part in parts.values())]

    def of(self, revealed: Tensor) -> Pixels:
        """The pixels of a picture that shows the regions of `revealed`, bool [N]."""
        pixels = {name: base.clone() for name, base in self._covered.items()}
        for region in revealed.nonzero()[:, 0].tolist():
            for name, part in self._parts[region].items():
                pixels[name].view(-1).index_add_(0, part.places, part.values)
        return pixels

    def error(self, process: Process, masks: Sequence[Tensor]) -> float:
        """By how much composed pixels differ from processed ones at most, over some masks."""
        pairs = ((self.of(mask), process(mask)) for mask in masks)
        return max(float((one[name] - other[name]).abs().max()) for one, other in pairs for name in one)


def _part(alone: Tensor, covered: Tensor) -> Part:
    added = (alone - covered).reshape(-1)
    places = added.nonzero()[:, 0]
    return Part(places, added[places])
