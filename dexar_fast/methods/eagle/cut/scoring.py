"""The probabilities of an answer's tokens under pictures that show some of their regions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dexar_fast.attribution.masked import MaskedForwards
from dexar_fast.generation.asked import Asked
from dexar_fast.methods.eagle.cut.divided import Divided
from dexar_fast.prompt.pixels import Pixels


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
    forwards = MaskedForwards(
        asked.model, asked.inputs, asked.targets, asked.decoder, asked.visual, positions, ids, batch
    )

    def probabilities(revealed: Tensor) -> Tensor:
        def make(chosen: range) -> list[dict[str, Tensor]]:
            return pixels.of_each([cut.shown(revealed[i]) for i in chosen])

        return forwards(len(revealed), make)

    return probabilities
