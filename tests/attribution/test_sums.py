"""The running results of a pass over its layers."""

from __future__ import annotations

import torch

from dexar_fast.attribution.sums import LayerSums
from dexar_fast.backends import ops
from dexar_fast.backends.operands import LayerScores


def test_layers_of_every_kind_are_summed() -> None:
    """Those that agree in device and dtype in one memory; here the dtypes differ, in the order of a split model."""
    sums, score = LayerSums(visual=4, score=ops.head_score), torch.ones(3, 2)
    kinds = [torch.float32, torch.bfloat16, torch.float32, torch.float64]
    for layer, dtype in enumerate(kinds, 1):
        maps = sums.maps(torch.ones(3, 2, 5, dtype=dtype))
        maps.token_map.add_(layer)
        maps.unfiltered_map.add_(10 * layer)
        sums.add(LayerScores(score, score, torch.tensor([[layer, -1]] * 3), None))
    found = sums.attribution(6)
    assert torch.equal(found.token_maps, torch.full((3, 4), 10, dtype=torch.float64))
    assert torch.equal(found.unfiltered_token_maps, torch.full((3, 4), 100, dtype=torch.float64))
    assert found.visual_scores.shape == (3, len(kinds), 2)
    assert found.text_winners.tolist() == [0, 3, 3, 3, 3, 0]


def test_layers_of_one_kind_share_memory() -> None:
    sums, u = LayerSums(visual=4, score=ops.head_score), torch.ones(3, 2, 5, dtype=torch.bfloat16)
    maps = sums.maps(u)
    assert sums.maps(u.clone()) is maps
    for x in (maps.token_map, maps.unfiltered_map):
        assert torch.equal(x, torch.zeros(3, 4))
