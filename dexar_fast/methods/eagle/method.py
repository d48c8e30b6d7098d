"""EAGLE as a method: which regions of the pictures an answer needs, by masked forwards alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.methods import knobs
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.cut import of_request
from dexar_fast.methods.cut.divided import Divided
from dexar_fast.methods.cut.scoring import scorer
from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.greedy.scorer import Probabilities
from dexar_fast.methods.eagle.ranked import Ranked
from dexar_fast.methods.eagle.search import Variant, check, search
from dexar_fast.prompt.pieces import pieces


@dataclass(frozen=True, eq=False)
class Eagle:
    """EAGLE (arXiv 2509.22496): a greedy search for the regions that suffice and that are indispensable.

    Attributes:
        regions: about how many, of each picture and of each frame of a video.
        segmentation: "grid" (blocks of visual tokens), "slico" (superpixels of the authors' code, by OpenCV) or "slic"
            (by scikit-image).
        labels: int [height, width], a region number for each pixel; of a video [frames, height, width], where a number
            names one region in all frames that it stands in; or a list of such maps, each with numbers of its own, in
            the order of the pictures. It takes the place of `regions` and `segmentation`. `cut.labels.video_cells`
            makes the 5 x 5 cells of each frame that the authors take.
        fill: what a hidden region shows: "black", "mean" (colour of the picture), "blur" or "noise".
        variant, lambda1, lambda2, scope, pending, refresh, budget: of `dexar_fast.methods.eagle.search`.
        tokens: which tokens of the answer to search for, each once (negative from the end); None is all of them.
        ids: other ids in the place of these tokens: which regions speak for a word that the model did not write.
        batch: pictures in one forward; None takes as many as fit in 256 MiB.
    Raises:
        InputError: a value that no request gives a meaning to; what a request refuses, `maps` names.

    An Eagle equals itself alone: its labels may be arrays.
    """

    name: ClassVar[str] = "eagle"
    contrasts: ClassVar[bool] = True

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

    def __post_init__(self) -> None:
        of_request.check(self)
        knobs.real("lambda1", self.lambda1)
        knobs.real("lambda2", self.lambda2)
        check(self.scope, self.pending, self.refresh, self.variant)
        self._check_optional()

    def _check_optional(self) -> None:
        if self.budget is not None:
            knobs.whole("budget", self.budget, 1)
        if self.tokens is not None:
            _check_distinct(knobs.indices("tokens", self.tokens))
        if self.ids is not None:
            knobs.indices("ids", self.ids)

    def maps(self, asked: Asked) -> Maps:
        """See `dexar_fast.methods.base.Method`. Raises InputError without the pictures or their processor, too."""
        found = self.ranked(asked).maps(len(asked.targets))
        return found if self.ids is None else replace(found, notes=[self._instead(asked), *found.notes])

    def _instead(self, asked: Asked) -> str:
        """What is explained in the place of the answer's own words."""
        tokenizer = getattr(asked.processor, "tokenizer", None)
        other = pieces(tokenizer, [*(self.ids or ())])
        own = pieces(tokenizer, asked.targets[self.chosen(len(asked.targets))].tolist())
        pairs = ", ".join(f"{one.strip()!r} for {word.strip()!r}" for one, word in zip(other, own, strict=True))
        return f"The maps are not of the answer's own words, but of others in their place: {pairs}."

    def ranked(self, asked: Asked) -> Ranked:
        """The regions of a request in order. Raises as `maps`."""
        pixels, cut, seen = of_request.of_request(self, asked)
        chosen = self.chosen(len(asked.targets))
        ids = None if self.ids is None else _ids(self.ids, chosen, asked)
        probabilities = scorer(asked, cut, pixels, chosen, ids, self.batch)
        return self.ranking(cut, seen, chosen, probabilities)

    def chosen(self, count: int) -> Tensor:
        """[n] the tokens to search for of an answer of `count`, counted from 0. Raises InputError."""
        tokens = None if self.tokens is None else knobs.indices("tokens", self.tokens)
        if tokens == []:
            raise InputError(f"tokens [] must name tokens of the answer, 0 to {count - 1}")
        chosen = knobs.tokens_of(tokens, count)
        _check_distinct(chosen)
        return torch.tensor(chosen)

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


def _check_distinct(tokens: list[int]) -> None:
    if len({*tokens}) < len(tokens):
        raise InputError(f"tokens {tokens} name a token twice")


def _ids(ids: Sequence[int], chosen: Tensor, asked: Asked) -> Tensor:
    found = knobs.indices("ids", ids)
    if len(found) != len(chosen):
        raise InputError(f"ids must be one for each of the {len(chosen)} tokens, not {len(found)}")
    if min(found) < 0 or max(found) >= asked.decoder.lens.rows:
        raise InputError(f"ids must be those of words of the model, 0 to {asked.decoder.lens.rows - 1}")
    return torch.tensor(found)
