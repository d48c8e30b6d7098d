"""EAGLE as a method: which regions of the pictures an answer needs, by masked forwards alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.eagle.divided import Divided, divided
from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.modality import modality
from dexar_fast.methods.eagle.pictures import scorer
from dexar_fast.methods.eagle.saliency import region_saliency, token_saliency
from dexar_fast.methods.eagle.search import Variant, search
from dexar_fast.methods.eagle.seen import seen_by
from dexar_fast.prompt.pixels import Pixels

NOTES = [
    "Map value of a region, from 0 to 1: how early the search places it. The search goes on with the region that, "
    "shown beside those before it, best keeps the answer's probability, and hidden with them, best destroys it.",
    "Map of a token: the same along the same order, for that token's probability alone.",
    "Weight of a token: its perception, the mean probability that showing regions adds to its lowest (EAGLE's "
    "influence of the picture). 0: it follows from the language before it.",
]


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
        variant, lambda1, lambda2, scope, pending, refresh: of `dexar_fast.methods.eagle.search`.
        tokens: which tokens of the answer to search for (negative from the end); None is all of them.
        ids: other ids in the place of these tokens: which regions speak for a word that the model did not write.
        batch: pictures in one forward; None takes as many as fit in 256 MiB.
    """

    name: ClassVar[str] = "eagle"

    regions: int = 64
    segmentation: str = "grid"
    labels: Any = None
    fill: str = "black"
    variant: Variant = "efficient"
    lambda1: float = 1.0
    lambda2: float = 1.0
    scope: int = 6
    pending: int = 4
    refresh: int = 15
    tokens: Sequence[int] | None = None
    ids: Sequence[int] | None = None
    batch: int | None = None

    def maps(self, asked: Asked) -> Maps:
        """See `dexar_fast.methods.base.Method`. Raises InputError without the pictures or their processor, too."""
        cut = divided(asked.images, asked.grids, self.regions, self.segmentation, self.labels, self.fill)
        chosen = _chosen(self.tokens, len(asked.targets))
        ids = None if self.ids is None else _ids(self.ids, chosen, asked)
        pixels = Pixels(asked.processor, asked.inputs, asked.images)
        probabilities = scorer(asked, cut, pixels, chosen, ids, self.batch)
        seen = seen_by(cut, asked.grids, pixels.of)
        found = self._search(_of_seen(probabilities, cut.starts[-1], seen), len(seen))
        return _maps(asked, cut, seen, chosen, found)

    def _search(self, probabilities: Callable[[Tensor], Tensor], regions: int) -> SearchResult:
        return search(
            probabilities,
            regions,
            lambda1=self.lambda1,
            lambda2=self.lambda2,
            variant=self.variant,
            scope=self.scope,
            pending=self.pending,
            refresh=self.refresh,
        )


def _chosen(tokens: Sequence[int] | None, count: int) -> Tensor:
    """[n] the tokens of an answer of `count`, counted from 0."""
    if tokens is None:
        return torch.arange(count)
    chosen = torch.tensor(list(tokens), dtype=torch.long)
    if len(chosen) == 0 or int(chosen.min()) < -count or int(chosen.max()) >= count:
        raise InputError(f"tokens {list(tokens)} must name tokens of the answer, 0 to {count - 1}")
    return chosen % count


def _ids(ids: Sequence[int], chosen: Tensor, asked: Asked) -> Tensor:
    found = torch.tensor(list(ids), dtype=torch.long)
    if len(found) != len(chosen):
        raise InputError(f"ids must be one for each of the {len(chosen)} tokens, not {len(found)}")
    if int(found.min()) < 0 or int(found.max()) >= asked.decoder.lens.rows:
        raise InputError(f"ids must be those of words of the model, 0 to {asked.decoder.lens.rows - 1}")
    return found


def _of_seen(probabilities: Callable[[Tensor], Tensor], regions: int, seen: Tensor) -> Callable[[Tensor], Tensor]:
    """The same for masks of the seen regions alone, bool [B, M]; the others are always shown."""

    def of_seen(revealed: Tensor) -> Tensor:
        whole = torch.ones(len(revealed), regions, dtype=torch.bool)
        whole[:, seen] = revealed
        return probabilities(whole)

    return of_seen


def _maps(asked: Asked, cut: Divided, seen: Tensor, chosen: Tensor, found: SearchResult) -> Maps:
    tokens, regions = len(asked.targets), cut.starts[-1]
    sequence, maps, weights = torch.zeros(regions), torch.zeros(tokens, regions), torch.zeros(tokens)
    areas = cut.areas[seen[found.order]].cumsum(0)
    parts = modality(found, areas)
    sequence[seen] = region_saliency(found).float()
    maps[chosen[:, None], seen] = token_saliency(found).float()
    weights[chosen] = parts.perception.float()
    unseen = sorted({*range(regions)} - {*seen.tolist()})
    details = {
        "order": seen[found.order].tolist(),
        "areas": areas.tolist(),
        "insertion": found.insertion.tolist(),
        "deletion": found.deletion.tolist(),
        "empty": found.empty.tolist(),
        "full": found.full.tolist(),
        "tokens": chosen.tolist(),
        "prior": parts.prior.tolist(),
        "perception": parts.perception.tolist(),
        "unseen_regions": unseen,
        "forwards": found.evaluated,
        "share_verified": float(found.verified.float().mean()),
    }
    return Maps(maps, sequence, cut.cells, weights, NOTES, {"eagle": details})
