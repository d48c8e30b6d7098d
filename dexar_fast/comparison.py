"""Explanations of one answer by several methods, side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from dexar_fast.explanation import Explanation
from dexar_fast.report.page.document import compare_html


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

    def to_html(self, path: str | os.PathLike[str], *, by: Literal["token", "word"] = "token") -> None:
        """Write a page with all of them side by side: a token chosen in one is chosen in all.

        Raises:
            InputError: fewer than two, or another value of `by`.
            FileError: the folder does not exist, or it cannot be written there.
        """
        compare_html(self._explanations, path, titles=self.names, by=by)
