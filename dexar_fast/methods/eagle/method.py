"""EAGLE as a method: which regions of the pictures an answer needs, by masked forwards alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.eagle.cut.divided import Divided, divided
from dexar_fast.methods.eagle.cut.scoring import scorer
from dexar_fast.methods.eagle.cut.seen import seen_by
from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.greedy.scorer import Probabilities
from dexar_fast.methods.eagle.ranked import Ranked
from dexar_fast.methods.eagle.search import Variant, search
from dexar_fast.prompt.pixels import Pixels


@dataclass(frozen=True)
class Eagle:
    """EAGLE (arXiv 2509.22496): a greedy search for the regions that suffice and that are indispensable.

    Attributes:
        regions: about how many, of each picture.
        segmentation: "grid" (blocks of visual tokens), "slico" (superpixels of the authors' code, by OpenCV) or "slic"
            (by scikit-image).
        labels: int [height, width], a region number for each pixel, or a list of such maps, one for each picture; it
            takes the place of `regions` and `segmentation`.
        fill: what a hidden region shows: "black", "mean" (colour of the picture) or "blur".
        variant, lambda1, lambda2, scope, pending, refresh, budget: of `dexar_fast.methods.eagle.search`.
        tokens: which tokens of the answer to search for (negative from the end); None is all of them.
        ids: other ids in the place of these tokens: which regions speak for a word that the model did not write.
        batch: pictures in one forward; None takes as many as fit in 256 MiB.
    """

    name: ClassVar[str] = "eagle"

    regions: int = 64
    segmentation: str = "grid"
    labels: Any = None
    fill: str = "black"
    variant: Variant = "guided"
    lambda1: float = 1.0
    lambda2: float = 1.0
    scope: int = 6
    pending: int = 4
    refresh: int = 15
    budget: int | None = None
    tokens: Sequence[int] | None = None
    ids: Sequence[int] | None = None
    batch: int | None = None

    def maps(self, asked: Asked) -> Maps:
        """See `dexar_fast.methods.base.Method`. Raises InputError without the pictures or their processor, too."""
        return self.ranked(asked).maps(len(asked.targets))

    def ranked(self, asked: Asked) -> Ranked:
        """The regions of a request in order. Raises as `maps`."""
        cut = divided(asked.images, asked.grids, self.regions, self.segmentation, self.labels, self.fill)
        chosen = self.chosen(len(asked.targets))
        ids = None if self.ids is None else _ids(self.ids, chosen, asked)
        pixels = Pixels(asked.processor, asked.inputs, asked.images)
        probabilities = scorer(asked, cut, pixels, chosen, ids, self.batch)
        return self.ranking(cut, seen_by(cut, asked.grids, pixels.of), chosen, probabilities)

    def chosen(self, count: int) -> Tensor:
        """[n] the tokens to search for of an answer of `count`, counted from 0. Raises InputError."""
        if self.tokens is None:
            return torch.arange(count)
        chosen = torch.tensor(list(self.tokens), dtype=torch.long)
        if len(chosen) == 0 or int(chosen.min()) < -count or int(chosen.max()) >= count:
            raise InputError(f"tokens {list(self.tokens)} must name tokens of the answer, 0 to {count - 1}")
        return chosen % count

    def ranking(self, cut: Divided, seen: Tensor, chosen: Tensor, probabilities: Probabilities) -> Ranked:
        """The seen regions in order; `probabilities` takes which of all regions are revealed, bool [B, N]."""
        found = self._search(lambda revealed: probabilities(cut.revealing(seen, revealed)), len(seen))
        return Ranked(cut, seen, chosen, found)

    def _search(self, probabilities: Probabilities, regions: int) -> SearchResult:
        return search(
            probabilities,
            regions,
            lambda1=self.lambda1,
            lambda2=self.lambda2,
            variant=self.variant,
            scope=self.scope,
            pending=self.pending,
            refresh=self.refresh,
            budget=self.budget,
        )


def given(method: Any) -> Eagle:
    """A method that must be EAGLE; None is EAGLE as it comes. Raises InputError."""
    if method is not None and not isinstance(method, Eagle):
        raise InputError(f"the method must be an Eagle, with its knobs: only EAGLE hides regions; not {method!r}")
    return Eagle() if method is None else method


def _ids(ids: Sequence[int], chosen: Tensor, asked: Asked) -> Tensor:
    found = torch.tensor(list(ids), dtype=torch.long)
    if len(found) != len(chosen):
        raise InputError(f"ids must be one for each of the {len(chosen)} tokens, not {len(found)}")
    if int(found.min()) < 0 or int(found.max()) >= asked.decoder.lens.rows:
        raise InputError(f"ids must be those of words of the model, 0 to {asked.decoder.lens.rows - 1}")
    return found
