"""The probabilities of an answer's tokens under pictures that show some of their regions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from torch import Tensor

from dexar_fast.attribution.masked import MaskedForwards
from dexar_fast.generation.asked import Asked
from dexar_fast.methods.cut.composing import Composed, composed
from dexar_fast.methods.cut.divided import Divided
from dexar_fast.prompt.remade.pixels import Pixels

PAYS = 2  # pictures for each region: so many take the processor longer than what composing them needs of it


def scorer(
    asked: Asked,
    cut: Divided,
    pixels: Pixels,
    positions: Tensor | None = None,
    ids: Tensor | None = None,
    batch: int | None = None,
) -> Callable[[Tensor], Tensor]:
    """A function from the regions revealed, bool [B, N], to probabilities [B, n] float32.

    Args:
        pixels: of the request. positions, ids, batch: of `MaskedForwards`.
    """
    request = asked.inputs, asked.targets, asked.decoder, asked.visual
    forwards = MaskedForwards(asked.model, *request, positions, ids, batch, asked.against)
    masked = _MaskedPixels(cut, pixels)

    def probabilities(revealed: Tensor) -> Tensor:
        make = masked.maker(len(revealed))
        return forwards(len(revealed), lambda chosen: make(revealed[chosen.start : chosen.stop]))

    return probabilities


class _MaskedPixels:
    """Pixels with regions hidden: composed once many were asked for, where that is exact; else processed."""

    def __init__(self, cut: Divided, pixels: Pixels) -> None:
        self._cut = cut
        self._pixels = pixels
        self._asked = 0

    def maker(self, count: int) -> Callable[[Tensor], list[dict[str, Tensor]]]:
        """For the next `count` pictures: a function from the regions revealed, bool [B, N]."""
        self._asked += count
        pays = self._asked >= PAYS * self._cut.count
        return self._of_each(self._composed) if pays and self._composed else self._processed

    @cached_property
    def _composed(self) -> Composed | None:
        return composed(self._cut, self._pixels.of)

    def _of_each(self, compose: Composed) -> Callable[[Tensor], list[dict[str, Tensor]]]:
        return lambda revealed: [compose(each) for each in revealed]

    def _processed(self, revealed: Tensor) -> list[dict[str, Tensor]]:
        return self._pixels.of_each([self._cut.shown(each) for each in revealed])
