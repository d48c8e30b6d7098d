"""Chance lines beside those in the files of single metrics: random maps and orders reach what the docstrings say."""

import numpy as np
import pytest

from dexar_fast.metrics import activation, chance, segmentation
from dexar_fast.metrics.hiding import correction, ordering, perturbation, revealing

DRAWS = 2000


def quarter() -> np.ndarray:
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = True
    return mask


def test_pointing_as_eagle_reads_it_is_the_share_where_the_maximum_is_unique():
    rng = np.random.default_rng(0)
    hits = [segmentation.points_at_as_eagle(rng.random((20, 20)), quarter()) for _ in range(DRAWS)]
    assert np.mean(hits) == pytest.approx(0.25, abs=0.03)


def test_random_smooth_maps_are_level_and_have_their_maximum_at_the_edges():
    rng = np.random.default_rng(1)
    maps = np.array([chance.random_smooth(36, 36, rng) for _ in range(DRAWS)])
    assert maps.mean(0) == pytest.approx(np.full((36, 36), 0.5), abs=0.03)
    inner = np.zeros((36, 36), bool)
    inner[5:-5, 5:-5] = True
    assert np.mean([segmentation.points_at(each, inner) for each in maps]) == pytest.approx(0.25, abs=0.03)
    assert np.mean([segmentation.energy_inside(each, inner) for each in maps]) == pytest.approx(inner.mean(), abs=0.01)


def test_objects_of_maps_that_know_nothing():
    """Values uniform in [0, 1): half lie above Otsu's threshold. s = .25: .125 / .625 = .2."""
    rng = np.random.default_rng(2)
    mask = rng.random((200, 200)) < 0.25
    s, q = mask.mean(), 0.5
    maps = rng.random((6, 200, 200))
    expected = q * s / (q + s - q * s)
    assert expected == pytest.approx(0.2, abs=0.01)
    assert [activation.object_iou([each], mask).iou for each in maps] == pytest.approx([expected] * 6, abs=0.01)
    assert activation.object_iou(maps, mask).iou >= max(activation.object_iou([each], mask).iou for each in maps)


def test_f1_of_chance():
    """Random maps: .2 and the threshold .5, so .2 / .7 = .286; uniform ones have 0."""
    rng = np.random.default_rng(3)
    mask, maps = rng.random((200, 200)) < 0.25, rng.random((4, 200, 200))
    found = activation.f1_iou(activation.object_iou(maps[:1], mask).iou, activation.function_iou(maps[1:], maps[:1]))
    assert found == pytest.approx(2 * 0.2 * 0.5 / 0.7, abs=0.01)
    ones = np.ones((1, 200, 200))
    assert activation.f1_iou(activation.object_iou(ones, mask).iou, activation.function_iou(ones, ones)) == 0


def test_corrections_by_random_orders():
    """One of 8 regions causes the error, and one sample in two is never put right: 1 to 8 eighths, each alike, or 1."""
    rng = np.random.default_rng(4)
    areas = [(k + 1) / 8 for k in range(8)]
    places = rng.integers(1, 8, size=4000)  # the first region alone is right at least
    put_right = [correction.minimal_region([k < place for k in range(8)], areas) for place in places]
    never = [correction.minimal_region([False] * 8, areas)] * 4000
    assert correction.csr_of_corrected(put_right + never, 0.25) == pytest.approx(2 / 7, abs=0.03)
    assert correction.csr(put_right + never, 0.25) == pytest.approx(1 / 7, abs=0.02)


def curves(weight: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    """Normalised perplexity, the most important first and last, where a part of weight w costs every token w nats."""
    places = ordering.order(values)
    counts = ordering.counts(len(weight), 10)[:-1]
    return [
        perturbation.normalised_perplexity([[-weight[ordering.first(each, count)].sum()] for count in counts])
        for each in (places, places[::-1])
    ]


def test_random_orders_have_one_perturbation_area_both_ways():
    rng = np.random.default_rng(5)
    weight = rng.random(100) ** 4
    weight *= 2 / weight.sum()
    blind = np.array([[perturbation.area(each) for each in curves(weight, v)] for v in rng.random((400, 100))])
    assert blind[:, 0].mean() == pytest.approx(blind[:, 1].mean(), rel=0.02)
    positive, negative = (perturbation.area(each) for each in curves(weight, weight))
    assert positive > blind[:, 0].max() and negative < blind[:, 1].min()


def test_every_order_has_the_same_area_where_all_parts_matter_alike():
    """The curve is e^f: (e^.9 - 1) / .9 = 1.62, up to the trapezoids."""
    for values in np.random.default_rng(6).random((5, 100)):
        found = [perturbation.area(each) for each in curves(np.full(100, 0.01), values)]
        assert found == pytest.approx([(np.exp(0.9) - 1) / 0.9] * 2, rel=2e-3)


def test_the_highest_probability_is_that_of_the_whole_picture_by_any_order():
    rng = np.random.default_rng(7)
    weight = rng.dirichlet(np.ones(50))
    for values in rng.random((5, 50)):
        shown = [weight[ordering.first(ordering.order(values), count)].sum() for count in ordering.counts(50, 10)]
        curve = np.clip(0.8 * np.array(shown), 0, 1)[:, None]
        assert revealing.areas(curve, curve[::-1], np.arange(11) / 10).highest == pytest.approx(0.8)
