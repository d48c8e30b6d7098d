"""The knobs of an Explainer, checked once (METHOD.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from operator import index
from typing import Any, ClassVar, Literal

from dexar_fast.errors import InputError

Mode = Literal["paper", "official"]
TextSet = Literal["all", "content", "prompt", "generated"]
SequenceNorm = Literal["none", "token"]
HeadScore = Literal["max", "mean"] | tuple[Literal["topk"], int]
MapFilter = tuple[Literal["rank"], int] | None

OFFICIAL_LAYER_INDEX = -10


@dataclass(frozen=True)
class Settings:
    """How an answer is explained.

    Attributes:
        mode: "paper", or "official" to reproduce the authors' code, quirks included.
        layers: which of the layers that hold attention (negative from the end); None is all of them.
        layer_index: explain from this layer on (negative from the end, clamped to the first); exclusive with `layers`.
            In official mode it defaults to -10.
        text_set: which non-visual keys count as text in S_txt: "all" (the paper), "content" (the characters of the
            user's own text and the answer), "prompt", or "generated".
        head_score: how G is reduced to a score over a set of keys: "max" (the paper), ("topk", k), or "mean".
        map_filter: ("rank", k) replaces each cell of a head's map by the k-th smallest of its 3x3 neighbourhood (5 is
            the median), before scores and sums: a remedy for single outlier patches. None is the paper.
        sequence_norm: "none" sums raw token maps (the authors' code); "token" scales each to [0, 1] first.
        head_filter: False takes w = 1 for every head, an ablation of the paper.
        token_filter: False takes delta = 1 for every token, an ablation of the paper.
        text_relevance: also finds how much each token rests on each word before it; scoring takes twice as long.
    Raises:
        InputError: an unknown value; the message lists the known ones.
    """

    name: ClassVar[str] = "dex-ar"

    mode: Mode = "paper"
    layers: tuple[int, ...] | None = None
    layer_index: int | None = None
    text_set: TextSet = "all"
    head_score: HeadScore = "max"
    map_filter: MapFilter = None
    sequence_norm: SequenceNorm = "none"
    head_filter: bool = True
    token_filter: bool = True
    text_relevance: bool = False

    def __post_init__(self) -> None:
        if self.layers is not None:
            object.__setattr__(self, "layers", _whole_numbers("layers", self.layers))
        _one_of("mode", self.mode, ("paper", "official"))
        _one_of("text_set", self.text_set, ("all", "content", "prompt", "generated"))
        _one_of("sequence_norm", self.sequence_norm, ("none", "token"))
        if self.layers is not None and self.layer_index is not None:
            raise InputError("give layers or layer_index, not both")
        if self.layers == ():
            raise InputError("layers is empty: name at least one layer, or leave it out for all")
        if self.head_score not in ("max", "mean") and not _is_pair(self.head_score, "topk"):
            raise InputError(f"head_score {self.head_score!r} is none of 'max', 'mean', ('topk', k) with k >= 1")
        if self.map_filter is not None and not (_is_pair(self.map_filter, "rank") and self.map_filter[1] <= 9):
            raise InputError(f"map_filter {self.map_filter!r} is neither None nor ('rank', k) with k from 1 to 9")

    def layers_of(self, count: int) -> list[int]:
        """The layers to explain, of `count` that hold attention, in ascending order. Raises InputError."""
        if self.layers is not None:
            return sorted({layer_of(layer, count) for layer in self.layers})
        first = self.layer_index
        if first is None:
            first = OFFICIAL_LAYER_INDEX if self.mode == "official" else 0
        if first >= count:
            raise InputError(
                f"layer_index {first} is out of range: the model has at most {count} layers that hold attention, "
                "numbered from 0"
            )
        return list(range(max(0, first if first >= 0 else count + first), count))


def settings(
    layers: Any = None,
    head_score: Any = "max",
    map_filter: Any = None,
    *,
    layer_index: Any = None,
    **knobs: Any,
) -> Settings:
    """Settings from what users pass: lists where tuples are meant, and numpy's integers, are fine."""
    return Settings(
        layers=layers,
        layer_index=None if layer_index is None else _whole_numbers("layer_index", [layer_index])[0],
        head_score=_tuple(head_score),
        map_filter=_tuple(map_filter),
        **knobs,
    )


def positive(name: str, value: Any) -> int:
    """A positive whole number, numpy's included. Raises InputError."""
    try:
        number = index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise InputError(f"{name} {value!r} is no positive number: pass 1, 2, ...")
    return number


def _whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    """Layers by number, numpy's numbers included, bools not. Raises InputError."""
    try:
        given = [*values]
        if not any(isinstance(value, bool) for value in given):
            return tuple(index(value) for value in given)
    except TypeError:
        pass
    raise InputError(f"{name} {values!r}: number the layers 0, 1, ... (or -1, -2, ... from the end)")


def _tuple(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{name} {value!r} is none of {', '.join(map(repr, known))}")


def _is_pair(value: Any, name: str) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and value[0] == name
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
        and value[1] >= 1
    )


def layer_of(layer: int, count: int) -> int:
    """A layer counted from the first, of `count` that hold attention. Raises InputError."""
    if not -count <= layer < count:
        raise InputError(
            f"layer {layer} is out of range: the model has at most {count} layers that hold attention, numbered from 0"
        )
    return layer % count
