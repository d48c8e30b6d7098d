"""The Triton kernels in Triton's interpreter, against the reference: run by test_triton.py under TRITON_INTERPRET=1.

Triton reads the variable when it is first imported, so this needs a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from bounded import bound
from dexar_fast.kernels import head_score as kernels
from kernel_cases import CASES, MAPS, NAMES, Guarded, check, name, problem, run

from dexar_fast import InputError

SMALL = {"dim": 20, "visual": "run", "dtype": torch.float32, "heads": (2, 2), "keys": 40, "queries": 5,
         "sight": "causal", "layout": "contiguous", "values": "normal", "attended": False}  # fmt: skip
INTERPRETED = [case for case in CASES if case["dtype"] != torch.float64]


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Results and scratch are poison until they are written, and nothing is written or read beside an array."""
    outputs = Guarded()
    torch.use_deterministic_algorithms(True)  # which fills empty memory
    monkeypatch.setattr(kernels, "empty_scores", outputs)
    bound(monkeypatch, kernels.score_kernel, kernels.join_kernel, kernels.map_kernel)
    yield
    torch.use_deterministic_algorithms(False)
    outputs.check()


@pytest.mark.parametrize("case", INTERPRETED, ids=name)
def test_equals_the_reference(case: dict[str, Any]) -> None:
    given = problem(case)
    check(run(kernels.head_score, given), given)


def test_the_first_of_equal_keys_wins() -> None:
    given = problem(SMALL | {"keys": 300, "attended": True})
    for x in (given.u, given.value, *vars(given.attention).values()):
        if isinstance(x, torch.Tensor):
            x.fill_(0.5)
    assert torch.equal(run(kernels.head_score, given)["text_winner"], torch.zeros(5, 4, dtype=torch.int64))


def test_heads_summed_apart_are_all_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    """More groups of heads than divide their number, and a single one."""
    given = problem(SMALL | {"heads": (7, 1)})
    for programs in (1, 3, 128):
        monkeypatch.setattr(kernels, "PROGRAMS", programs)
        check(run(kernels.head_score, given), given)


def test_maps_are_added_to_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel itself, and after heads that are summed apart; all numbers are whole, so nothing rounds."""
    given = problem(SMALL | {"values": "whole", "heads": (7, 1)})
    for programs in (1, 3):
        monkeypatch.setattr(kernels, "PROGRAMS", programs)
        zeros = [torch.zeros_like(x) for x in given.before]
        alone, found = run(kernels.head_score, given, zeros), run(kernels.head_score, given)
        for result, before in zip(NAMES[4:], given.before, strict=True):
            assert alone[result].any()
            assert torch.equal(found[result], before + alone[result]), result


@pytest.mark.parametrize("visual_key", [True, False])
def test_bad_values_reach_all_that_they_enter_and_nothing_else(visual_key: bool) -> None:
    given = problem(SMALL)
    given.u.abs_()
    key = int((given.visual if visual_key else given.text)[3])
    given.attendable[0, key] = False
    clean = run(kernels.head_score, given)
    given.value[1, key, 2] = torch.nan
    found = run(kernels.head_score, given)
    for result in NAMES:
        assert torch.equal(found[result][0], clean[result][0]), result
    touched = found["visual_score" if visual_key else "text_score"]
    assert touched[1:, 2:].isnan().all() and touched[:, :2].isfinite().all()
    assert found["smallest"][1:, 2:].isnan().all() == visual_key and found["smallest"][:, :2].isfinite().all()
    assert found["token_map"][1:].isnan().any(1).all()
    assert (found["text_winner"][1:, 2:] == -1).all() != visual_key
    others = given.visual != key
    assert torch.equal(found["unfiltered_map"][:, others], clean["unfiltered_map"][:, others])


def test_places_outside_of_the_keys_are_none() -> None:
    """Their maps are 0; bounds beyond the keys end with them."""
    given = problem(SMALL)
    lists = list(given.arguments)
    wide = [*lists]
    wide[2], wide[3] = (torch.cat([x, x.new_tensor([-1, 40, 2**31 - 1])]) for x in lists[2:4])
    wide[5] = lists[5] + 7 * (lists[5] == 39)
    wide[4] = lists[4] - 3
    wide[MAPS] = (torch.zeros(5, len(wide[2])) for _ in range(2))
    lists[MAPS] = (torch.zeros(5, len(lists[2])) for _ in range(2))
    found, wanted = kernels.head_score(*wide), kernels.head_score(*lists)
    assert all(map(torch.equal, found, wanted))
    for some, others in zip(wide[MAPS], lists[MAPS], strict=True):
        assert torch.equal(some[:, :-3], others) and not some[:, -3:].any()


def test_the_smallest_gradient_is_left_out_where_nobody_wants_it() -> None:
    given = problem(SMALL)
    some, others = ([*given.arguments] for _ in range(2))
    found, wanted = kernels.head_score(*some, smallest=False), kernels.head_score(*others)
    assert all(map(torch.equal, found[:3], wanted[:3])) and all(map(torch.equal, some[MAPS], others[MAPS]))


UNFIT: dict[str, tuple[Callable[[list[Any]], None], str]] = {
    "heads": (lambda x: x.__setitem__(1, x[1][:1].expand(3, -1, -1)), "do not fit"),
    "widths": (lambda x: x.__setitem__(1, x[1][..., :-1]), "do not fit"),
    "bounds": (lambda x: x.__setitem__(4, x[4][1:]), "one for each of 5 queries"),
    "lists": (lambda x: x.__setitem__(2, x[2][None]), "lists of positions"),
    "a mask": (lambda x: x.__setitem__(6, torch.ones(5, 7, dtype=torch.bool)), "the mask must be bool"),
    "devices": (lambda x: x.__setitem__(1, x[1].to("meta")), "not all that it is scored with"),
}


@pytest.mark.parametrize(("change", "words"), UNFIT.values(), ids=UNFIT.keys())
def test_what_does_not_fit_is_refused(change: Callable[[list[Any]], None], words: str) -> None:
    arguments = list(problem(SMALL).arguments)
    change(arguments)
    with pytest.raises(InputError, match=words):
        kernels.head_score(*arguments)


def test_double_precision_is_refused() -> None:
    with pytest.raises(InputError, match="use backend='torch'"):
        kernels.head_score(*problem(SMALL | {"dtype": torch.float64}).arguments)


def test_maps_that_nothing_can_be_added_to_are_refused() -> None:
    arguments = list(problem(SMALL).arguments)
    arguments[MAPS] = (x.T for x in arguments[MAPS])
    with pytest.raises(InputError, match="must be dense"):
        kernels.head_score(*arguments)
