"""Layers scored together in Triton's interpreter, against the reference: run by test_triton.py.

Layers that read the same keys are heads of one wide layer: so its problem is theirs.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dexar_fast.kernels import head_score as kernels
from interpreted import guarded  # noqa: F401
from kernel_cases import NAMES, Problem, check, check_scores, name
from pairwise import pairwise

from dexar_fast import InputError
from dexar_fast.backends.cpp import Scored
from dexar_fast.backends.operands import KeyLists, KeyRun, Keys

AXES: dict[str, list[Any]] = {
    "layers": [1, 2, 5],
    "heads": [(1, 1), (2, 3), (1, 7)],  # H_kv, H / H_kv
    "dim": [16, 20, 80],
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
    "queries": [1, 3, 17, 70],
    "before": [0, 1, 65],  # text before the image
    "visual": [1, 32, 63, 130],
    "behind": [0, 30, 64, 129],  # text behind it, before the first query
    "values": ["normal", "whole"],
}


def problem(case: dict[str, Any], seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    kv_heads, group = case["heads"]
    kv_heads *= case["layers"]
    seen = range(case["before"], case["before"] + case["visual"])
    length = seen.stop + case["behind"] + case["queries"]
    position = torch.arange(length)
    shapes = (case["queries"], kv_heads * group, case["dim"]), (kv_heads, length, case["dim"])
    whole = case["values"] == "whole"
    u, value = (
        torch.randint(-2, 3, shape, generator=generator) if whole else torch.randn(shape, generator=generator)
        for shape in shapes
    )
    reads = position <= position[-case["queries"] :, None]
    others = (position < seen.start) | (position >= seen.stop)
    return Problem(u.to(case["dtype"]), value.to(case["dtype"]), position[~others], position[others], reads)


def layers_of(given: Problem, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(given.u.chunk(count, 1), given.value.chunk(count), strict=True))


def keys_of(given: Problem) -> Keys:
    run = slice(int(given.visual[0]), int(given.visual[-1]) + 1)
    return Keys(run, given.text, given.attendable, causal=True)


def as_one(scores: Scored, maps: torch.Tensor, given: Problem) -> dict[str, torch.Tensor]:
    """Of the wide layer; what `check` compares were added to its maps."""
    wide = [x.transpose(0, 1).flatten(1) for x in scores]
    return dict(zip(NAMES, [*wide, *(some + each for some, each in zip(maps, given.before, strict=True))], strict=True))


ALONE = {
    "layers": 2,
    "heads": (2, 1),
    "dim": 16,
    "before": 0,
    "visual": 63,
    "values": "normal",
}  # the last key, in a tile
CASES = [
    *pairwise(AXES),
    *({**ALONE, "dtype": dtype, "queries": 1, "behind": 64} for dtype in (torch.float32, torch.bfloat16)),
    {**ALONE, "dtype": torch.float32, "queries": 70, "behind": 27},
]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_layers_equal_the_reference(case: dict[str, Any]) -> None:
    given = problem(case)
    keys, layers = keys_of(given), layers_of(given, case["layers"])
    assert keys.run is not None
    check(as_one(*kernels.head_scores(layers, keys.run), given), given)


@pytest.mark.parametrize("programs", [1, 2, 5])
def test_a_program_goes_on_with_the_heads_of_the_next_layer(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "PROGRAMS", programs)
    given = problem({**CASES[0], "layers": 3, "heads": (2, 2), "queries": 5, "before": 3, "visual": 40, "behind": 30})
    keys, layers = keys_of(given), layers_of(given, 3)
    assert keys.run is not None
    check(as_one(*kernels.head_scores(layers, keys.run), given), given)


@pytest.mark.parametrize("programs", [1, 3, 128])
@pytest.mark.parametrize("masked", [False, True])
def test_lists_of_keys_give_the_same(masked: bool, programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: tiles differ in which keys they hold, not in their products or the order of heads."""
    monkeypatch.setattr(kernels, "PROGRAMS", programs)
    case = {**CASES[0], "layers": 3, "heads": (2, 2), "queries": 5, "before": 3, "visual": 40, "behind": 30}
    given = problem(case | {"values": "whole"})
    keys, layers = keys_of(given), layers_of(given, 3)
    lists = keys.lists
    if masked:
        lists = KeyLists(lists.visual, lists.text, lists.first, lists.last + 1, given.attendable)
    assert isinstance(keys.run, KeyRun)
    (scores, maps), (others, summed) = (kernels.head_scores(layers, each) for each in (keys.run, lists))
    assert all(map(torch.equal, scores, others)) and torch.equal(maps, summed)


def in_parts(monkeypatch: pytest.MonkeyPatch, programs: int) -> None:
    """Keys are scored in as many parts as there are tiles, or as programs."""
    monkeypatch.setattr(kernels, "PROGRAMS", programs)
    monkeypatch.setattr(kernels, "LEAST_TILES", 1)


@pytest.mark.parametrize("smallest", [False, True])
@pytest.mark.parametrize("as_lists", [False, True])
@pytest.mark.parametrize("queries", [1, 5, 70])
def test_keys_scored_in_parts_give_the_same(
    queries: int, as_lists: bool, smallest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, of scores: a maximum has no order. Ties are won by the first key, whichever part it is in."""
    case = {**CASES[0], "layers": 2, "heads": (1, 2), "queries": queries, "visual": 130, "before": 65, "behind": 129}
    given = problem(case | {"values": "whole"})
    keys, layers = keys_of(given), layers_of(given, 2)
    sight = keys.lists if as_lists else keys.run
    assert sight is not None
    in_parts(monkeypatch, 1)
    wanted, _ = kernels.head_scores(layers, sight, smallest)
    for programs in (30, 65, 10_000):
        in_parts(monkeypatch, programs)
        found, maps = kernels.head_scores(layers, sight, smallest)
        count = 4 if smallest else 3
        assert all(map(torch.equal, found[:count], wanted[:count]))
        check_scores(as_one(found, maps, given), given)


def test_bad_values_of_a_part_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts(monkeypatch, 10_000)
    given = problem({**CASES[0], "layers": 2, "queries": 3, "visual": 130, "before": 65, "behind": 64})
    keys, layers = keys_of(given), layers_of(given, 2)
    assert keys.run is not None
    for key, nan in ((100, (0, 3)), (10, (1,)), (200, (1,))):  # a visual key, and two of the text: in front, behind
        layers[0][1][:, key] = torch.nan
        scores, _ = kernels.head_scores(layers, keys.run)
        for number in (0, 1, 3):
            assert scores[number][0].isnan().all() == (number in nan) and scores[number][1].isfinite().all()
        assert (scores[2][0] == -1).all() == (1 in nan)
        layers[0][1][:, key] = 1


def test_layers_are_those_of_their_own_launches() -> None:
    given = problem({**CASES[0], "layers": 3, "heads": (2, 2), "queries": 5, "dtype": torch.float32})
    keys, layers = keys_of(given), layers_of(given, 3)
    assert keys.run is not None
    together, _ = kernels.head_scores(layers, keys.run)
    for number, layer in enumerate(layers):
        alone, _ = kernels.head_scores([layer], keys.run)
        assert all(torch.equal(x[number], y[0]) for x, y in zip(together, alone, strict=True))


def test_bad_values_reach_their_own_layer_alone() -> None:
    given = problem({**CASES[0], "layers": 3, "heads": (1, 2), "queries": 3, "visual": 40, "dtype": torch.float32})
    keys, layers = keys_of(given), layers_of(given, 3)
    assert keys.run is not None
    layers[1][1].fill_(torch.nan)
    scores, maps = kernels.head_scores(layers, keys.run)
    for x in (scores[0], scores[1], scores[3]):
        assert x[1].isnan().all() and x[[0, 2]].isfinite().all()
    assert maps.isnan().all()
    assert (scores[2][1] == -1).all() and (scores[2][[0, 2]] >= -1).all()


def test_the_smallest_gradient_is_left_out_where_nobody_wants_it() -> None:
    case = {**CASES[0], "layers": 2, "queries": 3}
    given = problem(case)
    keys, layers = keys_of(given), layers_of(given, 2)
    assert keys.run is not None
    check_scores(as_one(*kernels.head_scores(layers, keys.run, smallest=False), given), given)


def test_layers_that_are_not_alike_are_refused() -> None:
    given = problem({**CASES[0], "layers": 2, "queries": 3})
    keys, (first, (u, value)) = keys_of(given), layers_of(given, 2)
    assert keys.run is not None
    for other in ((u.double(), value), (u, value[:, :-1]), (u.transpose(0, 1).contiguous().transpose(0, 1), value)):
        with pytest.raises(InputError, match="of one shape, layout, dtype and device"):
            kernels.head_scores([first, other], keys.run)
