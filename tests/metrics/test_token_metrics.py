"""Token-filter ratio and sensitive words: by hand, at chance, and what is refused."""

import math

import numpy as np
import pytest

from dexar_fast.errors import InputError
from dexar_fast.metrics import tokens

VISUAL = np.array([False, True, True, False])


def test_the_docstrings_numbers():
    assert tokens.token_filter_ratio([0.1, 0.9, 0.6, 0.2], VISUAL) == pytest.approx(5)
    assert tokens.sensitive([0.9, 0.5, 0.8], [0.8, 0.1, 0.7]).tolist() == [False, True, False]


def test_more_than_the_bound_is_meant_strictly():
    assert tokens.sensitive([0.5], [0.25], above=0.25).tolist() == [False]
    assert tokens.sensitive([0.5], [0.25], above=0.249).tolist() == [True]


def test_blank_and_one_sided_answers():
    assert tokens.token_filter_ratio([0, 0, 0, 0], VISUAL) == 1
    assert tokens.token_filter_ratio([0, 1, 0, 0], VISUAL) == math.inf
    assert tokens.token_filter_ratio([1, 0, 0, 0], VISUAL) == 0


def test_random_weights_reach_1():
    rng = np.random.default_rng(0)
    assert tokens.token_filter_ratio(rng.random(20000), rng.random(20000) < 0.3) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    "attribution, visual, message",
    [
        ([0.1, 0.2], VISUAL, "same tokens"),
        ([0.1, 0.2, np.nan, 0], VISUAL, "NaN"),
        ([0.1, -0.2, 0.1, 0], VISUAL, "from 0 on"),
        ([0.1] * 4, [True] * 4, "4 of 4 tokens"),
        ([0.1] * 4, [0, 1, 1, 0], "truth values"),
    ],
)
def test_tokens_that_make_no_ratio(attribution, visual, message):
    with pytest.raises(InputError, match=message):
        tokens.token_filter_ratio(attribution, visual)


@pytest.mark.parametrize("full, empty", [([0.5], [0.5, 0.1]), ([1.5], [0.5]), ([[0.5]], [[0.5]]), ([], [])])
def test_what_are_no_probabilities(full, empty):
    with pytest.raises(InputError):
        tokens.sensitive(full, empty)
