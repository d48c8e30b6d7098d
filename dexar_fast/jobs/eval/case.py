"""An item that one method has explained: its maps over the picture, its masks, its words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.data.item import Item, Phrase
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.jobs.eval import chance_methods
from dexar_fast.metrics.maps import Map, Mask

Found = TypeVar("Found")


@dataclass(frozen=True)
class Case:
    """One item and one method.

    Attributes:
        explainer: by that method.
        null: the name of the chance map; None for a method.
        seed: of everything that is drawn for this item.
        again: the map [N] of another picture, with the same question and answer.
        others: opens the pictures of the other items, one after the other.
        shared: what was found about the item whatever the method.
    """

    explainer: Explainer
    item: Item
    explanation: Explanation
    null: str | None
    seed: int
    again: Callable[[Image.Image], Any]
    others: Callable[[], Iterator[Image.Image]] = lambda: iter(())
    shared: dict[Any, Any] = field(default_factory=dict)
    _kept: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, make: Callable[[], Found]) -> Found:
        """What several metrics share, made for the first."""
        return _once(self._kept, key, make)

    def once_for_all(self, key: Any, make: Callable[[], Found]) -> Found:
        """What all methods share: it does not depend on the map."""
        return _once(self.shared, key, make)

    @cached_property
    def masks(self) -> Mask:
        """bool [regions, height, width]."""
        return self.item.masks()

    @cached_property
    def counted(self) -> Mask:
        """bool [height, width], the pixels that are not void."""
        return ~self.item.ignored()

    @cached_property
    def answer_map(self) -> Map:
        """[height, width], that of the whole answer; ones where it is blank."""
        return self.drawn(None)

    def word_map(self, phrase: Phrase) -> Map:
        """[height, width], that of a phrase of the answer."""
        return self.once(phrase, lambda: self.drawn(self.tokens_of(phrase)))

    def drawn(self, tokens: Sequence[int] | None) -> Map:
        """[height, width], a map over the picture in [0, 1]; a chance map as it is defined."""
        height, width = self.counted.shape
        if self.null is not None:
            return chance_methods.drawn(self.null, height, width, (self.seed, *(tokens or ())))
        heat = self._heat(tokens)
        return heat if heat.any() else np.ones_like(heat)

    def is_blank(self, tokens: Sequence[int] | None) -> bool:
        """Whether the map of a method is the same everywhere; chance maps do not count."""
        return self.null is None and not self._heat(tokens).any()

    def _heat(self, tokens: Sequence[int] | None) -> Map:
        chosen = None if tokens is None else list(tokens)
        return self.once(
            ("heat", str(chosen)), lambda: self.explanation.heatmap(chosen, resolution="image").astype(np.float64)
        )

    def tokens_of(self, phrase: Phrase) -> list[int]:
        """The tokens that hold characters of a phrase; none if the answer explained is not the item's."""
        begins = self._start
        return [] if begins < 0 else _overlapping(self._stops, begins + phrase.start, begins + phrase.stop)

    @property
    def visual(self) -> NDArray[np.bool_]:
        """[T], which tokens belong to phrases."""
        chosen = [token for phrase in self.item.phrases for token in self.tokens_of(phrase)]
        return np.isin(np.arange(len(self.explanation)), chosen)

    @cached_property
    def _stops(self) -> list[int]:
        return np.cumsum([len(text) for text in self.explanation.tokens]).tolist()

    @cached_property
    def _start(self) -> int:
        """Where the item's answer begins in the text of the tokens; -1 if it is another one."""
        return "".join(self.explanation.tokens).find(self.item.answer) if self.item.answer else -1


def _once(kept: dict[Any, Any], key: Any, make: Callable[[], Found]) -> Found:
    if key not in kept:
        kept[key] = make()
    found: Found = kept[key]
    return found


def _overlapping(stops: Sequence[int], first: int, last: int) -> list[int]:
    spans = pairwise([0, *stops])
    return [token for token, (start, stop) in enumerate(spans) if start < last and stop > first]
