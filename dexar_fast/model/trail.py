"""A cache that the pass keeps for itself, beside generate()'s own, where a model cannot go back in its cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Trail:
    """How far the pass has come through a prompt and its answer; it goes on from there, and never back."""

    open: bool = False  # whether more of the answer may come than is known
    cache: Any = None
    length: int = 0  # tokens in it

    def leads_to(self, position: int) -> bool:
        """Whether the token at this position is the next to run."""
        return self.cache is not None and self.length == position

    def begin(self, cache: Any, length: int) -> None:
        """Takes a cache of so many tokens; None ends the trail."""
        self.cache, self.length = cache, length
