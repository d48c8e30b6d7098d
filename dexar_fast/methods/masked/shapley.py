"""Shapley values of the regions: the gain of each, averaged over the coalitions that it may join."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.methods import knobs
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.masked.game import OfRegions, maps_of

Kind = Literal["permutation", "kernel"]
Worth = Callable[[Tensor], Tensor]
"""From coalitions, bool [B, M], to what they are worth, [B, T] float64."""

_NOTES = (
    "Map value of a region, in nats: its Shapley value, what showing it adds to the log-probability of the token on "
    "average over all orders of showing regions, estimated from {}; 0 where negative.",
    "All values of a token, negative ones too, add up to the gain of the whole picture over a picture of which every "
    "region is hidden.",
)


@dataclass(frozen=True, eq=False)
class Shapley(OfRegions):
    """map[t, r] = relu( phi_r ), of the game of the seen regions with log p_t as its worth.

    `diagnostics["gain"]` has log p_t(all) - log p_t(none), to which the phi of token t add up.

    Attributes:
        kind: "permutation": gains along random orders and their reverses, M forwards each (arXiv 1104.2541's sampling,
            in antithetic pairs). "kernel": least squares over random coalitions and their complements (KernelSHAP,
            arXiv 1705.07874), all of them where these are no more than `samples`: then phi is exact.
        samples: how many orders, or coalitions.
        seed: of them.
    Raises:
        InputError: another kind, no samples or, of coalitions, fewer than there are regions.
    """

    name: ClassVar[str] = "shapley"
    regions: int = 16
    kind: Kind = "permutation"
    samples: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        knobs.one_of("kind", self.kind, ("permutation", "kernel"))
        knobs.whole("samples", self.samples, 1)
        knobs.seed(self.seed)

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N] in nats. Raises as `game.OfRegions.game`."""
        game, generator = self.game(asked), torch.Generator().manual_seed(int(self.seed))
        ends = game(torch.tensor([[False], [True]]).expand(2, len(game.seen)))
        estimate, drawn = _KINDS[self.kind]
        values = estimate(game, ends, self.samples, generator, len(game.seen))
        notes = _NOTES[0].format(f"{self.samples} {drawn}"), _NOTES[1]
        return maps_of(game.cut, game.seen, values, notes, gain=(ends[1] - ends[0]).tolist())


def _by_orders(game: Worth, ends: Tensor, samples: int, generator: torch.Generator, players: int) -> Tensor:
    """[T, M]: mean gains along orders. ends: [2, T] of none and of all."""
    total = torch.zeros(players, ends.shape[1], dtype=torch.float64)
    for order in _orders(players, samples, generator):
        shown = torch.zeros(players - 1, players, dtype=torch.bool)
        shown[:, order] = torch.ones(players - 1, players, dtype=torch.bool).tril()
        worth = torch.cat([ends[:1], game(shown), ends[1:]]) if players > 1 else ends
        total[order] += worth.diff(dim=0)
    return (total / samples).T


def _orders(players: int, samples: int, generator: torch.Generator) -> list[Tensor]:
    """Random orders of the players, each second one the first in reverse."""
    drawn = (torch.randperm(players, generator=generator) for _ in range(-(-samples // 2)))
    return [order for one in drawn for order in (one, one.flip(0))][:samples]


def _by_coalitions(game: Worth, ends: Tensor, samples: int, generator: torch.Generator, players: int) -> Tensor:
    """[T, M]: the additive game nearest to this one by Shapley's kernel, of the same worth of none and of all."""
    if players == 1:
        return (ends[1] - ends[0])[:, None]
    least = min(2 * (players - 1), 2**players - 2)  # a complement tells nothing that its coalition does not
    if samples < least:
        raise InputError(f"{samples} coalitions do not tell {players} regions apart: samples must be {least} or more")
    shown, weights = _coalitions(players, samples, generator)
    return _fitted(shown.double(), weights, game(shown) - ends[0], ends[1] - ends[0])


def _coalitions(players: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """bool [K, M] with their weights [K]: all where they are no more than `samples`, else drawn by the kernel."""
    if 2**players - 2 <= samples:
        return _every_coalition(players)
    sizes = torch.arange(1, players, dtype=torch.float64)
    drawn = torch.multinomial(1 / (sizes * (players - sizes)), -(-samples // 2), True, generator=generator) + 1
    ranks = torch.rand(len(drawn), players, generator=generator).argsort(1)
    shown = ranks < drawn[:, None]
    return torch.cat([shown, ~shown]), torch.ones(2 * len(drawn), dtype=torch.float64)


def _every_coalition(players: int) -> tuple[Tensor, Tensor]:
    """But none and all."""
    members = [each for size in range(1, players) for each in combinations(range(players), size)]
    weights = [1 / (comb(players, len(each)) * len(each) * (players - len(each))) for each in members]
    shown = torch.zeros(len(members), players, dtype=torch.bool)
    for row, each in zip(shown, members, strict=True):
        row[list(each)] = True
    return shown, torch.tensor(weights, dtype=torch.float64)


def _fitted(shown: Tensor, weights: Tensor, worth: Tensor, gain: Tensor) -> Tensor:
    """[T, M]: phi that minimises sum_k w_k (shown_k phi - worth_k)^2 with sum phi = gain; worth: [K, T], gain: [T]."""
    share, scale = shown.mean(1, keepdim=True), weights.sqrt()[:, None]
    # Each region has gain / M and a rest. The rests add up to 0; where draws leave some open, they are the smallest.
    design, target = (shown - share) * scale, (worth - share * gain) * scale
    rests = torch.linalg.lstsq(design, target, driver="gelsd").solution
    return (rests + gain / shown.shape[1]).T


_KINDS = {"permutation": (_by_orders, "orders"), "kernel": (_by_coalitions, "coalitions")}
