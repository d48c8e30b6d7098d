"""The running results of a pass over its layers."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from dexar_fast.attribution.sums import LayerSums
from dexar_fast.backends.operands import HeadGroups, Keys, Layer, LayerScores, MapSums
from dexar_fast.backends.ops import Scoring

ALIKE, OTHERS = (Keys.of(torch.arange(1, 5), torch.tensor([0, 5]), torch.ones(3, 6, dtype=torch.bool)) for _ in "ab")


class Told:
    """Scores each layer as its u says, in the place of `Scoring`; `joins` says which wait for others."""

    def __init__(self, joins: bool = False) -> None:
        self._joins = joins
        self.together: list[int] = []

    def joins(self, layer: Layer) -> bool:
        return self._joins and isinstance(layer.keys, Keys)

    def of(self, layer: Layer, sums: MapSums) -> LayerScores:
        number = int(layer.u[0, 0, 0])
        sums.token_map.add_(number)
        sums.unfiltered_map.add_(10 * number)
        score = torch.full((3, 2), float(number))
        return LayerScores(score, score, torch.tensor([[number, -1]] * 3), None)

    def of_all(self, layers: Sequence[Layer]) -> tuple[list[LayerScores], MapSums]:
        self.together.append(len(layers))
        sums = MapSums.zeros(layers[0].u, 4)
        return [self.of(layer, sums) for layer in layers], sums


def layers_of(*kinds: tuple[torch.dtype, Keys | HeadGroups], told: Told) -> LayerSums:
    """The sums of layers whose u holds their number, from 1 on."""
    sums = LayerSums(4, told)  # type: ignore[arg-type]
    for number, (dtype, keys) in enumerate(kinds, 1):
        u, value = torch.full((3, 2, 5), number, dtype=dtype), torch.zeros(1, 2, 6, 5)
        call: Any = SimpleNamespace(value=value)
        sums.layer(u, call, keys)
    sums.settle()
    return sums


def check(sums: LayerSums, layers: int, dtype: torch.dtype) -> None:
    found, total = sums.attribution(6), layers * (layers + 1) // 2
    assert torch.equal(found.token_maps, torch.full((3, 4), total, dtype=dtype))
    assert torch.equal(found.unfiltered_token_maps, torch.full((3, 4), 10 * total, dtype=dtype))
    expected = torch.arange(1.0, layers + 1)[None, :, None].expand(3, layers, 2)
    assert torch.equal(found.visual_scores, expected) and torch.equal(found.text_scores, expected)
    assert found.text_winners.tolist() == [0, *[3] * layers, *[0] * (5 - layers)]


def test_layers_of_every_kind_are_summed() -> None:
    """Those that agree in device and dtype in one memory; here the dtypes differ, in the order of a split model."""
    kinds = [torch.float32, torch.bfloat16, torch.float32, torch.float64]
    check(layers_of(*((kind, ALIKE) for kind in kinds), told=Told()), 4, torch.float64)


def test_layers_that_wait_are_scored_with_those_of_their_kind() -> None:
    """Whatever stands between them: other keys, another dtype, heads that read different keys."""
    groups = HeadGroups(((torch.tensor([0]), ALIKE), (torch.tensor([1]), OTHERS)))
    kinds = [(torch.float32, ALIKE), (torch.float32, OTHERS), (torch.bfloat16, ALIKE), (torch.float32, groups)]
    told = Told(joins=True)
    check(layers_of(*kinds, (torch.float32, ALIKE), told=told), 5, torch.float32)
    assert told.together == [2, 1, 1]


def test_layers_scored_in_turns_are_added() -> None:
    told = Told(joins=True)
    sums = layers_of((torch.float32, ALIKE), (torch.float32, ALIKE), told=told)
    call: Any = SimpleNamespace(value=torch.zeros(1, 2, 6, 5))
    sums.layer(torch.full((3, 2, 5), 3.0), call, ALIKE)
    sums.settle()
    check(sums, 3, torch.float32)
    assert told.together == [2, 1]


def test_layers_of_one_kind_share_memory() -> None:
    sums, u = LayerSums(4, Scoring()), torch.ones(3, 2, 5, dtype=torch.bfloat16)
    maps = sums.maps(u)
    assert sums.maps(u.clone()) is maps
    for x in (maps.token_map, maps.unfiltered_map):
        assert torch.equal(x, torch.zeros(3, 4))
