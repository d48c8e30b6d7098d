"""An answer's log-probability as a function of which regions of the pictures are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dexar_fast.errors import NumericalError
from dexar_fast.methods.base import WHOLE_ANSWER, Asked, Maps
from dexar_fast.methods.cut import of_request
from dexar_fast.methods.cut.divided import Divided
from dexar_fast.methods.cut.scoring import scorer

LEAST = 1e-37  # a probability below this counts as this: float32 holds little less
EVIDENCE = "Evidence against a token shows 0. What a hidden region shows instead ({}) takes part in every value."


@dataclass(frozen=True)
class Game:
    """M of the N regions of pictures are players; the worth of a coalition is each token's log-probability, in nats.

    Attributes:
        seen: [M] int64, ascending: the regions that the model sees. The others are always shown.
        probabilities: from the regions revealed, bool [B, N], to [B, T] float32.
    """

    cut: Divided
    seen: Tensor
    probabilities: Callable[[Tensor], Tensor]

    def __call__(self, revealed: Tensor) -> Tensor:
        """[B, T] float64 of the M players that are revealed, bool [B, M]. Raises NumericalError for NaN."""
        found = self.probabilities(self.cut.revealing(self.seen, revealed))
        if not found.isfinite().all():
            raise NumericalError("NaN where parts of the pictures are hidden: load the model in float32 or bfloat16")
        return found.double().clamp_min(LEAST).log()


def maps_of(cut: Divided, seen: Tensor, values: Tensor, notes: Sequence[str], **diagnostics: Any) -> Maps:
    """Of values [T, M] of the seen regions: 0 where negative, and for regions that are not seen."""
    token_maps = torch.zeros(len(values), cut.count, dtype=torch.float32)
    token_maps[:, seen] = values.relu().float()
    unseen = sorted({*range(cut.count)} - {*seen.tolist()})
    said = [*notes, EVIDENCE.format(cut.fill), WHOLE_ANSWER]
    found = {"fill": cut.fill, "unseen_regions": unseen, **diagnostics}
    return Maps(token_maps, token_maps.sum(0), cut.cells, notes=said, diagnostics=found)


@dataclass(frozen=True, eq=False)
class OfRegions:
    """What the methods that hide regions share; such a method equals itself alone, as its labels may be arrays.

    Attributes:
        regions: about how many, of each picture and of each frame of a video.
        segmentation, labels: of `dexar_fast.methods.Eagle`.
        fill: what a hidden region shows: "black", "mean" (colour of the picture), "blur" or "noise".
        batch: pictures in one forward; None takes as many as fit in 256 MiB.
    """

    contrasts: ClassVar[bool] = True

    regions: int = 64
    segmentation: str = "grid"
    labels: Any = None
    fill: str = "blur"
    batch: int | None = None

    def __post_init__(self) -> None:
        of_request.check(self)

    def game(self, asked: Asked) -> Game:
        """Of a request. Raises InputError without the pictures or their processor, and for labels that do not fit."""
        pixels, cut, seen = of_request.of_request(self, asked)
        return Game(cut, seen, scorer(asked, cut, pixels, batch=self.batch))
