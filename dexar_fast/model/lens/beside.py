"""States of earlier layers that the lens reads beside the last layer's output (attention over depth, say).

Each layer gets them as an argument, and may hand on one more: its own input. Which layers do is seen in a forward. The
lens of a layer reads what the model would read if its decoder ended there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

Place = int | str  # of an argument


@dataclass(frozen=True)
class Visit:
    """What a layer got in one forward."""

    layer: nn.Module
    hidden: Tensor  # [1, P, d]
    states: Mapping[Place, Tensor]  # [1, P, n, d] each

    @classmethod
    def of(cls, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], length: int) -> Visit | None:
        """None for a layer that gets no states of each of `length` tokens."""
        hidden = _hidden(args, kwargs)
        given: list[tuple[Place, Any]] = [*enumerate(args), *kwargs.items()]
        states = {place: x for place, x in given if is_of_tokens(x, length) and x is not hidden}
        return cls(layer, hidden, states) if states and isinstance(hidden, Tensor) else None


@dataclass(frozen=True)
class Beside:
    """Where the states are among a layer's arguments, and which layers hand on one more."""

    place: Place
    grows: Mapping[nn.Module, bool]

    def after(self, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """The states [1, Q, n, d] as they are behind a layer that got these arguments."""
        states: Tensor = args[self.place] if isinstance(self.place, int) else kwargs[self.place]
        return _grown(states, _hidden(args, kwargs)) if self.grows[layer] else states


def found(visits: Sequence[Visit], last: Tensor) -> Beside | None:
    """How states came to be those that the lens of the last layer read; None if it cannot be told."""
    return next(filter(None, (_at(place, visits, last) for place in (visits[-1].states if visits else ()))), None)


def _at(place: Place, visits: Sequence[Visit], last: Tensor) -> Beside | None:
    """Layers that run several times may begin anew, from states of before: another visit tells what they do."""
    if not all(place in visit.states for visit in visits):
        return None
    chain = [visit.states[place] for visit in visits] + [last]
    steps = [(visit.layer, _grows(visit, *pair)) for visit, pair in zip(visits, pairwise(chain), strict=True)]
    seen = {(layer, grows) for layer, grows in steps if grows is not None}
    grows = dict(seen)
    told = len(grows) == len(seen) and grows.keys() == {visit.layer for visit in visits} and steps[-1][1] is not None
    return Beside(place, grows) if told else None


def is_of_tokens(value: Any, length: int) -> bool:
    """Whether it holds several states for each of `length` tokens, [1, P, n, d]."""
    return isinstance(value, Tensor) and value.ndim == 4 and value.shape[1] == length


def _grows(visit: Visit, before: Tensor, after: Tensor) -> bool | None:
    """Whether a layer handed on its input beside the states; None if neither these nor those came out."""
    if torch.equal(before, after):
        return False
    grown = visit.hidden.ndim == 3 and torch.equal(_grown(before, visit.hidden), after)
    return True if grown else None


def _grown(states: Tensor, hidden: Tensor) -> Tensor:
    return torch.cat([states, hidden.unsqueeze(-2)], -2)


def _hidden(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else kwargs.get("hidden_states")
