"""Explanations of one answer by several methods, side by side."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from PIL import Image

from dexar_fast import combining
from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.report.chosen import indices
from dexar_fast.report.page.document import compare_html

ENSEMBLE = ("mean of ranks", "disagreement")


class Comparison(Sequence[Explanation]):
    """Explanations of the same answer about the same picture, each with its name.

    Attributes:
        names: of the methods; numbered where one stands twice.
    """

    def __init__(self, names: Sequence[str], explanations: Sequence[Explanation]) -> None:
        repeated = {name for name in names if list(names).count(name) > 1}
        self.names = [f"{name} ({i})" if name in repeated else name for i, name in enumerate(names, 1)]
        self._explanations = list(explanations)

    def __getitem__(self, index: Any) -> Any:
        return self._explanations[index]

    def __len__(self) -> int:
        return len(self._explanations)

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self._explanations)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(self.names)}; {len(self[0])} tokens>"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the picture, where one can be drawn."""
        buffer = io.BytesIO()
        try:
            self.picture().save(buffer, "PNG")
        except InputError:
            return None
        return buffer.getvalue()

    def mean_ranks(self) -> Explanation:
        """The mean of the methods' ranks of each patch, as an explanation: what several of them hold for important.

        Raises:
            InputError: fewer than two, other answers or pictures, or maps without a place.
        """
        return combining.mean_ranks(self._explanations, self.names)

    def disagreement(self) -> Explanation:
        """The standard deviation of these ranks over the methods, as an explanation. Raises as `mean_ranks`."""
        return combining.disagreement(self._explanations, self.names)

    def with_ensemble(self) -> Comparison:
        """These, and behind them both of that. Raises as `mean_ranks`."""
        more = [self.mean_ranks(), self.disagreement()]
        return type(self)([*self.names, *ENSEMBLE], [*self._explanations, *more])

    def picture(self, tokens: Sequence[int] | None = None, *, max_tokens: int = 6, width: int = 1200) -> Image.Image:
        """A row for each method: its maps of the whole answer and of some tokens, the same for all, over the image.

        Maps lie over the first image that has one. Where a method weighs tokens, a token's heat is by weight, as in
        `Explanation.plot`.

        Args:
            tokens: which to show, where the answer is one. None is up to `max_tokens` (from 1): those of the greatest
                weight where a method weighs them, DEX-AR's before others; else words, evenly spaced.
            width: of the picture in pixels, from 320.

        Returns:
            RGB.

        Raises:
            InputError: a token out of range, tokens of answers that differ, `tokens` that are no list, another value of
                `max_tokens` or `width`, a model of unknown geometry, or images that were not kept.
        """
        from dexar_fast.report.drawing import compared

        if tokens is None:
            shown = compared.tokens_shown(self, max_tokens) if self._same_answer else []
        else:
            shown = indices(tokens, len(self[0]), "token")
            if shown and not self._same_answer:
                raise InputError("the answers differ, so that no token stands in all: leave tokens out")
        return compared.draw_compared(self, self.names, shown, width)

    @property
    def _same_answer(self) -> bool:
        return all(each.tokens == self[0].tokens for each in self)

    def to_html(self, path: str | os.PathLike[str], *, by: Literal["token", "word"] = "token") -> None:
        """Write a page with all of them side by side: a token chosen in one is chosen in all.

        Raises:
            InputError: fewer than two, or another value of `by`.
            FileError: the folder does not exist, or it cannot be written there.
        """
        compare_html(self._explanations, path, titles=self.names, by=by)
