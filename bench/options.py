"""What the command line says about how to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Size = TypeVar("Size")


@dataclass(frozen=True)
class Options:
    """How much to measure, and where."""

    quick: bool = False  # two rounds of the smallest sizes, to see that everything runs
    rounds: int | None = None
    device: str = "cpu"

    def rounds_of(self, full: int) -> int:
        """How many rounds, where a full run takes `full`."""
        return self.rounds or (2 if self.quick else full)

    def sizes(self, full: Sequence[Size], quick: int = 1) -> Sequence[Size]:
        """The sizes of a full run, or the first few of them."""
        return full[:quick] if self.quick else full
