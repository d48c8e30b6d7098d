"""Captum's perturbation methods over regions of the pictures, on our masked forwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor

from dexar_fast.errors import InputError, LibraryError
from dexar_fast.methods import knobs
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.masked.game import Game, OfRegions, maps_of

SAMPLES = {"FeatureAblation": None, "ShapleyValueSampling": "n_samples", "KernelShap": "n_samples", "Lime": "n_samples"}
"""By class of captum.attr: the argument that takes the number of samples."""
AT_ONCE = 16  # coalitions that Captum asks for together; what it finds is the same

_NOTE = (
    "Map value of a region, in nats: what Captum's {} finds for the log-probability of the token, over the regions "
    "that are shown or hidden; 0 where negative."
)
_LIMIT = "Captum's own page says how it draws and weighs what it hides."


@dataclass(frozen=True, eq=False)
class Captum(OfRegions):
    """A perturbation method of Captum (extra `captum`).

    Attributes:
        method: "FeatureAblation", "ShapleyValueSampling", "KernelShap" or "Lime" (the last two need scikit-learn).
        samples: of those that draw some: orders of all regions, or coalitions.
        seed: of what it draws. Each token sees the same draws, so that they share their forwards.
    Raises:
        InputError: another method, or no samples.
    """

    name: ClassVar[str] = "captum"
    regions: int = 16
    method: str = "ShapleyValueSampling"
    samples: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        knobs.one_of("method", self.method, SAMPLES)
        knobs.whole("samples", self.samples, 1)
        knobs.seed(self.seed)

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N] in nats. Raises as `game.OfRegions.game`; LibraryError without Captum or scikit-learn."""
        game = self.game(asked)
        worth, attribute = _remembering(game), self._attribute()
        values = torch.stack([attribute(worth, len(game.seen), t) for t in range(len(asked.targets))])
        return maps_of(game.cut, game.seen, values, (_NOTE.format(self.method), _LIMIT), method=self.method)

    def _attribute(self) -> Callable[[Callable[[Tensor], Tensor], int, int], Tensor]:
        """A function of the worth, the number of regions and a token to values [M]."""
        try:
            attr = import_module("captum.attr")
        except ImportError as error:
            raise LibraryError(f"method 'captum' needs Captum: pip install 'captum>=0.9,<1' ({error})") from error
        counted = SAMPLES[self.method]
        drawn: dict[str, Any] = {"perturbations_per_eval": AT_ONCE}
        drawn |= {} if counted is None else {counted: int(self.samples)}

        def attribute(worth: Callable[[Tensor], Tensor], players: int, token: int) -> Tensor:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(self.seed))
                method = getattr(attr, self.method)(worth)
                shown, hidden = torch.ones(1, players), torch.zeros(1, players)
                with _needing_scikit_learn():
                    found: Tensor = method.attribute(shown, baselines=hidden, target=token, **drawn)
                return found[0].double()

        return attribute


@contextmanager
def _needing_scikit_learn() -> Iterator[None]:
    """Two of the methods fit linear models with it, and say so in their own way."""
    try:
        yield
    except (ImportError, ValueError, AssertionError) as error:
        if "sklearn" not in str(error):
            raise
        raise LibraryError(f"this method of Captum needs scikit-learn: pip install scikit-learn ({error})") from error


def _remembering(game: Game) -> Callable[[Tensor], Tensor]:
    """The game over floats [B, M], 1 where a region is shown; no coalition runs twice."""
    known: dict[bytes, Tensor] = {}

    def worth(shown: Tensor) -> Tensor:
        coalitions = shown > 0.5
        if not torch.equal(coalitions.to(shown), shown):
            raise InputError("a region is shown or hidden as a whole: Captum's method asked for a share of one")
        keys = [row.numpy().tobytes() for row in coalitions]
        new = {key: row for key, row in zip(keys, coalitions, strict=True) if key not in known}
        if new:
            known.update(zip(new, game(torch.stack([*new.values()])), strict=True))
        return torch.stack([known[key] for key in keys])

    return worth
