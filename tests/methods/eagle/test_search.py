"""The search over scorers with known answers: counts, ties, small N, flat objectives, and what a scorer may return."""

from itertools import permutations

import numpy as np
import pytest
import torch
from eagle_scorers import pairwise

from dexar_fast.errors import InputError, NumericalError
from dexar_fast.methods.eagle import search


def greedy(probabilities, regions, lambda1, lambda2):
    """The exact search written out: one picture at a time, sums in float64."""
    order = []
    while len(order) < regions:
        values = {}
        for region in (r for r in range(regions) if r not in order):
            revealed = torch.zeros(1, regions, dtype=torch.bool)
            revealed[0, [*order, region]] = True
            shown, rest = probabilities(revealed).double(), probabilities(~revealed).double()
            values[region] = float((lambda1 * shown + lambda2 * (1 - rest)).mean())
        order.append(max(values, key=lambda region: (values[region], -region)))
    return order


@pytest.mark.parametrize("regions", [1, 2, 3, 7, 17])
@pytest.mark.parametrize("lambdas", [(1.0, 1.0), (2.0, 0.5), (0.0, 1.0)])
def test_exact_is_the_plain_greedy_search(regions, lambdas):
    probabilities = pairwise(regions, tokens=3, seed=regions)
    found = search(probabilities, regions, lambda1=lambdas[0], lambda2=lambdas[1])
    assert found.order.tolist() == greedy(probabilities, regions, *lambdas)
    assert found.forwards == regions * (regions + 1)


@pytest.mark.parametrize("regions", [1, 2])
@pytest.mark.parametrize("pending", [0, 4])
def test_few_regions_are_searched_exactly(regions, pending):
    probabilities = pairwise(regions)
    found = search(probabilities, regions, variant="efficient", pending=pending)
    assert torch.equal(found.order, search(probabilities, regions).order)
    assert found.verified.all() and found.tail == 0


def test_no_tail_means_exact():
    probabilities = pairwise(9)
    assert torch.equal(search(probabilities, 9, variant="efficient", pending=0).order, search(probabilities, 9).order)


def forwards_by_the_formula(regions, scope, pending, refresh):
    left, calls, step = regions, 2, 0
    while left > 1:
        calls += 2 * (left if step % refresh == 0 else min(scope, left))
        left -= 1
        if step == 0:
            left -= 1
        elif left > pending:
            calls += 2 * pending
            left -= 1
        step += 1
    return calls


@pytest.mark.parametrize("regions", [3, 4, 5, 16, 33])
@pytest.mark.parametrize("knobs", [(1, 1, 1), (3, 2, 4), (6, 4, 15), (100, 100, 100)])
def test_efficient_asks_for_as_many_forwards_as_its_formula(regions, knobs):
    scope, pending, refresh = knobs
    found = search(
        pairwise(regions, levels=4), regions, variant="efficient", scope=scope, pending=pending, refresh=refresh
    )
    assert found.forwards == forwards_by_the_formula(regions, scope, pending, refresh)
    assert sorted(found.order.tolist()) == list(range(regions))


def test_all_candidates_of_a_step_come_in_one_call_with_what_they_hide():
    seen = []

    def probabilities(revealed):
        seen.append(revealed)
        return pairwise(5)(revealed)

    search(probabilities, 5)
    assert [len(batch) for batch in seen[:3]] == [10, 8, 6]
    for batch in seen[:3]:
        shown, rest = batch.chunk(2)
        assert torch.equal(shown, ~rest)


def test_no_picture_is_evaluated_twice():
    seen = []

    def probabilities(revealed):
        seen.extend(tuple(row) for row in revealed.tolist())
        return pairwise(6)(revealed)

    found = search(probabilities, 6)
    assert len(seen) == len(set(seen)) == found.evaluated < found.forwards


@pytest.mark.parametrize("variant", ["exact", "efficient", "guided"])
def test_a_flat_objective_keeps_the_order_of_the_regions(variant):
    found = search(lambda revealed: torch.full((len(revealed), 2), 0.25), 6, variant=variant, scope=3, pending=2)
    assert found.objective.tolist() == [1.0] * 6
    assert found.order[0] == 0
    assert found.insertion.isfinite().all()


def test_of_equal_regions_the_first_goes_first():
    def probabilities(revealed):  # regions 2 and 4 say the same
        return (revealed[:, 2:3] | revealed[:, 4:5]).float() * 0.5

    assert search(probabilities, 6).order[0] == 2


def test_half_precision_answers_are_taken_in_float32():
    found = search(lambda revealed: pairwise(4)(revealed).half(), 4)
    assert found.insertion.dtype == found.objective.dtype == torch.float32


def test_verified_says_where_all_were_compared():
    found = search(pairwise(12), 12, variant="efficient", scope=2, pending=2, refresh=100)
    assert found.verified[0] and found.verified[-1]
    assert not found.verified.all()
    assert search(pairwise(12), 12).verified.all()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_an_additive_scorer_is_ordered_by_its_weights(order):
    weights = torch.tensor([0.1, 0.2, 0.3])[list(order)]
    found = search(lambda revealed: (revealed * weights).sum(1, keepdim=True), 3)
    assert found.order.tolist() == weights.argsort(descending=True).tolist()


@pytest.mark.parametrize("variant", ["exact", "efficient", "guided"])
def test_numbers_of_numpy_are_numbers(variant):
    plain = {"lambda1": 0.5, "lambda2": 2.0, "scope": 3, "pending": 1, "refresh": 2, "budget": 30}
    kinds = {"lambda1": np.float32, "lambda2": np.float64, "budget": np.int16}
    given = {name: kinds.get(name, np.uint8)(value) for name, value in plain.items()}
    ours = search(pairwise(6), np.int64(6), variant=variant, **given)
    expected = search(pairwise(6), 6, variant=variant, **plain)
    assert torch.equal(ours.order, expected.order) and torch.equal(ours.objective, expected.objective)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"regions": 0}, "regions"),
        ({"regions": 2.0}, "regions"),
        ({"regions": True}, "regions"),
        ({"scope": 0}, "scope"),
        ({"pending": -1}, "pending"),
        ({"refresh": 0}, "refresh"),
        ({"budget": 11}, "budget is a whole number of at least 12"),
        ({"lambda1": -1}, "lambda1"),
        ({"lambda2": float("nan")}, "lambda2"),
        ({"lambda2": "1"}, "lambda2"),
        ({"variant": "greedy"}, "'exact', 'efficient', 'lazy', 'guided'"),
    ],
)
def test_options_out_of_range_are_named(options, said):
    with pytest.raises(InputError, match=said):
        search(pairwise(3), **({"regions": 3} | options))


@pytest.mark.parametrize(
    "answer, error, said",
    [
        (lambda revealed: [0.5] * len(revealed), InputError, "list"),
        (lambda revealed: torch.ones(len(revealed)), InputError, "tokens"),
        (lambda revealed: torch.ones(1, 2), InputError, r"\[6, tokens\]"),
        (lambda revealed: torch.ones(len(revealed), 0), InputError, "tokens"),
        (lambda revealed: torch.ones(len(revealed), 2, dtype=torch.int64), InputError, "int64"),
        (lambda revealed: torch.ones(len(revealed), len(revealed)), InputError, "6 before"),
        (lambda revealed: torch.full((len(revealed), 2), float("nan")), NumericalError, "NaN"),
        (lambda revealed: torch.full((len(revealed), 2), -3.0), NumericalError, "outside"),
    ],
)
def test_what_is_no_probability_is_refused(answer, error, said):
    with pytest.raises(error, match=said):
        search(answer, 3)


def gains_that_add_up(revealed):
    """Every region adds its own share: nothing is better together."""
    shares = torch.tensor([0.05, 0.3, 0.1, 0.02, 0.2, 0.15, 0.08], dtype=torch.float64)
    return (revealed.double() @ shares)[:, None]


def needs_two_at_once(revealed):
    return 0.1 * revealed.double().mean(1, keepdim=True) + 0.8 * (revealed[:, 2] & revealed[:, 5])[:, None]


def test_the_lazy_search_is_exact_where_gains_add_up():
    exact, lazy = (search(gains_that_add_up, 7, variant=variant, refresh=100) for variant in ("exact", "lazy"))
    assert lazy.order.tolist() == exact.order.tolist() == [1, 4, 5, 2, 6, 0, 3]
    assert torch.equal(lazy.insertion, exact.insertion) and torch.equal(lazy.deletion, exact.deletion)
    assert lazy.forwards < 2 * exact.forwards / 3


@pytest.mark.parametrize("scorer", [gains_that_add_up, needs_two_at_once])
def test_the_lazy_search_that_always_refreshes_is_the_exact_one(scorer):
    exact, lazy = search(scorer, 7), search(scorer, 7, variant="lazy", refresh=1)
    assert lazy.order.tolist() == exact.order.tolist() and lazy.forwards == exact.forwards
    assert lazy.verified.all()


@pytest.mark.parametrize("regions", [1, 2, 3, 17])
def test_the_lazy_search_places_every_region(regions):
    found = search(lambda revealed: torch.full((len(revealed), 2), 0.5), regions, variant="lazy", refresh=4)
    assert sorted(found.order.tolist()) == [*range(regions)] and found.objective.isfinite().all()
