"""Schedules, normalised perplexity, insertion and deletion: by hand, by slow loops, at chance."""

import math
from pathlib import Path

import numpy as np
import pytest

from dexar_fast.errors import InputError
from dexar_fast.metrics import tokens
from dexar_fast.metrics.hiding import ordering, perturbation, revealing


def test_the_docstrings_numbers():
    assert ordering.order([0.2, 0.9, 0.5]).tolist() == [1, 2, 0]
    assert ordering.counts(10, 4).tolist() == [0, 2, 5, 7, 10]
    assert ordering.first(np.array([1, 2, 0]), 2).tolist() == [False, True, True]
    assert perturbation.normalised_perplexity([[-1, -1], [-1, -3]]) == pytest.approx([1, math.e])
    assert perturbation.area([1, 2, 4], [0, 0.2, 0.4]) == pytest.approx(2.25)
    found = revealing.areas([[0.1], [0.7], [0.9]], [[0.9], [0.3], [0.1]], [0, 0.5, 1])
    assert found == pytest.approx((0.6, 0.4, 0.9))
    assert revealing.recorded([[0.7], [0.9]], [[0.3], [0.1]], [0.5, 1]) == pytest.approx((0.6, 0.4, 0.9))


def test_equal_values_are_ordered_at_random_and_again_the_same():
    values = np.repeat([3.0, 1.0, 2.0], [5, 40, 5])
    first, again, other = (ordering.order(values, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert {*first[:5]} == {*range(5)} and {*first[5:10]} == {*range(45, 50)}
    places = np.array([ordering.order(np.zeros(4), seed) for seed in range(2000)])
    assert np.bincount(places[:, 0]) / 2000 == pytest.approx([0.25] * 4, abs=0.05)


def test_counts_are_those_of_eagles_script():
    for parts in (1, 63, 64, 1000, 640 * 480 + 7):
        assert ordering.counts(parts).tolist() == [int(parts * (i / 64)) for i in range(65)]
    assert len(perturbation.FRACTIONS) == 10 and perturbation.FRACTIONS[-1] == 0.9


def test_perplexity_by_a_loop_over_tokens():
    log_p = -np.random.default_rng(0).exponential(size=(10, 7))
    perplexities = [math.exp(-math.fsum(row) / 7) for row in log_p.tolist()]
    expected = [each / perplexities[0] for each in perplexities]
    assert perturbation.normalised_perplexity(log_p) == pytest.approx(expected)
    by_hand = sum((expected[i] + expected[i + 1]) / 2 * 0.1 for i in range(9)) / 0.9
    assert perturbation.area(expected) == pytest.approx(by_hand)


def test_a_perplexity_that_does_not_change_has_area_1():
    assert perturbation.area(perturbation.normalised_perplexity(np.full((10, 3), -2.0))) == pytest.approx(1)


def test_a_random_order_has_one_area_in_both_directions():
    """The probability is the share of the parts shown: .5 for any order; a good order shows the heavy parts first."""
    rng = np.random.default_rng(1)
    weight = rng.random(200) ** 6
    weight /= weight.sum()

    def curve(values: np.ndarray, hide: bool) -> np.ndarray:
        places = ordering.order(values)
        shown = [weight[ordering.first(places, count)].sum() for count in ordering.counts(200)]
        return np.clip([1 - share if hide else share for share in shown], 0, 1)[:, None]

    shares = ordering.counts(200) / 200
    blind = [
        revealing.areas(*(curve(values, hide) for hide in (False, True)), shares) for values in rng.random((99, 200))
    ]
    assert np.mean(blind, axis=0)[:2] == pytest.approx([0.5, 0.5], abs=0.02)
    good = revealing.areas(curve(weight, False), curve(weight, True), shares)
    assert good.insertion > 0.8 and good.deletion < 0.2


def test_the_record_as_eagles_script_reads_it():
    """Its steps one by one, with its two starts, over uneven regions; sensitive words beside all of them."""
    rng = np.random.default_rng(2)
    shown, hidden = rng.random((6, 4)), rng.random((6, 4))
    shares = rng.random(6).cumsum()
    shares /= shares[-1]
    x = [0.0, *shares]
    words = tokens.sensitive(shown[-1], hidden[-1])
    for chosen in (None, words):
        pick = [*range(4)] if chosen is None else np.flatnonzero(chosen).tolist()
        ins = [hidden[-1, pick].mean(), *shown[:, pick].mean(1)]
        out = [shown[-1, pick].mean(), *hidden[:, pick].mean(1)]
        expected = [sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(6)) for y in (ins, out)]
        assert revealing.recorded(shown, hidden, shares, chosen) == pytest.approx([*expected, max(ins)])
    assert revealing.recorded(shown, hidden, shares, np.zeros(4, bool)) is None


@pytest.mark.parametrize("case", ["sentence_exact", "sentence_eff_6_4_15", "word1_exact"])
def test_a_record_of_eagles_own_code(case):
    """The means of its words' curves over the areas of its regions, summed strip by strip."""
    with np.load(Path(__file__).parents[1] / "methods" / "eagle" / "reference" / "qwen.npz") as file:
        shown, hidden, order = (
            file[f"{case}/{name}"] for name in ("insertion_word_score", "deletion_word_score", "order")
        )
        x = [0.0, *np.cumsum([(file["labels"] == region).mean() for region in order])]
    curves = [*hidden[-1:], *shown], [*shown[-1:], *hidden]
    expected = [sum((x[k + 1] - x[k]) * (y[k].mean() + y[k + 1].mean()) / 2 for k in range(len(order))) for y in curves]
    highest = max(each.mean() for each in curves[0])
    assert revealing.recorded(shown, hidden, x[1:]) == pytest.approx([*expected, highest], rel=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ordering.order([1, np.nan]),
        lambda: ordering.order([[1, 2]]),
        lambda: ordering.counts(0),
        lambda: ordering.counts(5, 0),
        lambda: perturbation.normalised_perplexity([[0.5]]),
        lambda: perturbation.normalised_perplexity([[-np.inf]]),
        lambda: perturbation.normalised_perplexity([-1.0]),
        lambda: perturbation.area([1, 2]),
        lambda: perturbation.area([1, 2], [0.5, 0.5]),
        lambda: perturbation.area([1], [0]),
        lambda: revealing.areas([[0.5], [0.5]], [[0.5]], [0, 1]),
        lambda: revealing.areas([[0.5], [1.5]], [[0.5], [0.5]], [0, 1]),
        lambda: revealing.areas([[0.5], [0.5]], [[0.5], [0.5]], [1, 0]),
        lambda: revealing.recorded([[0.5]], [[0.5]], [1], [True, False]),
        lambda: revealing.recorded([[0.5]], [[np.nan]], [1]),
    ],
)
def test_what_is_refused(call):
    with pytest.raises(InputError):
        call()
