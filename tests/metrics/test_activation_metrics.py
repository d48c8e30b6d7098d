"""TAM's scores: by hand, with Otsu's threshold by exhaustive search, at chance."""

import numpy as np
import pytest

from dexar_fast.errors import InputError
from dexar_fast.metrics import activation

MASK = np.zeros((4, 4), bool)
MASK[:2, :2] = True
HALF = np.zeros((4, 4))
HALF[0, :2] = HALF[3, :2] = 1


def test_the_docstrings_numbers():
    assert activation.object_iou([HALF], MASK) == pytest.approx((2 / 6, 2 / 4, 2 / 4))
    word = np.where(MASK, 0.8, 0.1)
    assert activation.function_iou([word], [np.full((4, 4), 0.5)]) == pytest.approx(0.75)
    assert activation.f1_iou(0.25, 0.75) == pytest.approx(0.375)
    assert activation.f1_iou(0, 0) == activation.f1_iou(0, 1) == 0


def test_the_better_map_of_a_word_counts():
    assert activation.object_iou([HALF, MASK.astype(float), HALF], MASK) == (1, 1, 1)


def test_the_threshold_parts_where_both_sides_vary_least():
    rng = np.random.default_rng(0)
    a = np.concatenate([rng.normal(0.2, 0.05, 300), rng.normal(0.7, 0.1, 500)]).clip(0, 1)
    within = {
        t: (a <= t).mean() * a[a <= t].var() + (a > t).mean() * a[a > t].var() for t in np.linspace(0.1, 0.9, 401)
    }
    assert activation.threshold(a) == pytest.approx(min(within, key=within.get), abs=0.02)


def test_chance():
    rng = np.random.default_rng(1)
    assert activation.object_iou([np.ones((4, 4))], MASK).iou == 0.25
    nouns, words = rng.random((5, 200, 200)), rng.random((3, 200, 200))
    mean = np.mean([activation.threshold(noun) for noun in nouns])
    assert activation.function_iou(words, nouns) == pytest.approx(mean, abs=0.01)
    assert activation.function_iou([np.ones((9, 9))], nouns) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: activation.object_iou([], MASK),
        lambda: activation.object_iou([HALF], MASK[:3]),
        lambda: activation.object_iou([HALF], MASK & ~MASK),
        lambda: activation.function_iou([], [HALF]),
        lambda: activation.function_iou([HALF], []),
        lambda: activation.function_iou([HALF], [-HALF]),
        lambda: activation.function_iou([HALF * np.nan], [HALF]),
    ],
)
def test_what_is_refused(call):
    with pytest.raises(InputError):
        call()
