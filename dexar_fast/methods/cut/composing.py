"""Pixels of partly hidden pictures, put together from few that went through the processor.

A processor that only resizes lets a region reach the values near it alone. Regions that reach no value in common share
a colour. The processor sees the pictures with each set of colours revealed; whatever else is revealed, each value is
that of one of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexar_fast.methods.cut.divided import Divided
from dexar_fast.methods.cut.reach import Process, coloured, flat

TRIED = 16  # random pictures that must come out bit for bit


@dataclass(frozen=True)
class Composed:
    """Pixels of P values for any regions revealed.

    Attributes:
        reaching: [colours, P] int64, the region of each colour that reaches a value; N where none does.
        processed: [2 ** colours, P], the values with the colours of each number's bits revealed.
        like: pixels as the processor makes them, for their names and shapes.
    """

    reaching: NDArray[np.int64]
    processed: NDArray[np.generic]
    like: Mapping[str, Tensor]

    def __call__(self, revealed: Tensor) -> dict[str, Tensor]:
        """What the processor makes of the pictures with the regions revealed, bool [N]."""
        values = np.take(self.processed, self._places(revealed.numpy()))
        sizes = [each.numel() for each in self.like.values()]
        parts = torch.from_numpy(values).split(sizes)
        return {name: part.view_as(each).to(each) for (name, each), part in zip(self.like.items(), parts, strict=True)}

    def _places(self, revealed: NDArray[np.bool_]) -> NDArray[np.int64]:
        """[P]: where each value lies among all that are processed."""
        bits = np.append(revealed, False).astype(np.int64)
        values = self.reaching.shape[1]
        number = sum(bits[regions] << colour for colour, regions in enumerate(self.reaching))
        return number * values + np.arange(values)


def composed(cut: Divided, process: Process) -> Composed | None:
    """None where too many regions reach one value, pictures do not come out bit for bit as the processor's, or the
    processor makes them no smaller: then it is as fast."""
    reaching = coloured(cut, process)
    if reaching is None:
        return None
    made = [process(cut.shown(mask)) for mask in _of_colours(reaching, cut.count)]
    found = Composed(reaching, np.stack([flat(each) for each in made]), made[0])
    masks = torch.rand(TRIED, cut.count, generator=torch.Generator().manual_seed(0)) < 0.5
    exact = all(np.array_equal(flat(found(mask)), flat(process(cut.shown(mask)))) for mask in masks)
    return found if exact else None


def _of_colours(reaching: NDArray[np.int64], regions: int) -> Iterator[Tensor]:
    """bool [N], the regions revealed with each set of colours."""
    for number in range(2 ** len(reaching)):
        revealed = np.zeros(regions + 1, bool)
        for colour, reached in enumerate(reaching):
            revealed[reached] |= bool(number >> colour & 1)
        yield torch.from_numpy(revealed[:-1])
