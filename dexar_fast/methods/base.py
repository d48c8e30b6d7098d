"""What a method gets and what it gives: a request with its answer in, maps out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.generation.asked import Asked
from dexar_fast.vision.regions import Cells

__all__ = ["WHOLE_ANSWER", "Asked", "Following", "Layered", "Maps", "Method", "Streaming"]

WHOLE_ANSWER = "Map of the whole answer: the sum of the tokens' maps."
"""The note of every method whose `sequence_map` is that."""


@dataclass(frozen=True)
class Maps:
    """What a method found about T tokens of an answer: values of N cells, float32 or float64, on the CPU."""

    token_maps: Tensor  # [T, N]
    sequence_map: Tensor  # [N]
    cells: tuple[Cells, ...]  # where the values lie: the grids of the visual tokens, or regions of the images
    token_weights: Tensor | None = None  # [T]; None where the method weighs no tokens
    notes: Sequence[str] = ()  # what the values are, in sentences for the report
    diagnostics: dict[str, Any] = field(default_factory=dict)  # plain JSON


class Method(Protocol):
    """A way to explain an answer. Its knobs are the fields of a frozen dataclass."""

    name: ClassVar[str]

    def maps(self, asked: Asked) -> Maps:
        """Explains the whole answer.

        Raises:
            InputError, ModelError: the method is not defined for this request, or for layers of this model.
        """
        ...


@dataclass(frozen=True)
class Following:
    """How a method goes along with an answer while it is written, C tokens at a time, over the cache of generate()."""

    plan: Plan  # of the pass; what its sums give at the end holds token_maps [C, N]
    maps: Callable[[Tensor], Maps]  # the result of the maps [T, N] of any of the tokens


@runtime_checkable
class Layered(Protocol):
    """What explains by chosen layers of the decoder."""

    def layers_of(self, count: int) -> list[int]:
        """The chosen ones of `count` that hold attention. Raises InputError for one beyond."""
        ...


@runtime_checkable
class Streaming(Method, Protocol):
    """A method of which a token's map needs no later token, and no row of the prompt again."""

    @property
    def streams(self) -> bool:
        """Whether that holds with these knobs."""
        ...

    def follow(self, asked: Asked) -> Following:
        """What to compute for a request, whose `targets` are empty: its answer is not written yet. Raises as `maps`."""
        ...
