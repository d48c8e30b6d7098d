"""Perturbation, insertion and deletion of an explanation: each step one picture at a time, and blind maps at chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scored_pictures
import torch

from dexar_fast import Explainer, Explanation, InputError
from dexar_fast.evaluation.curves import insertion_deletion, perturbation
from dexar_fast.evaluation.places import Places
from dexar_fast.vision.grid import Grid


def ranked(e: Explanation) -> np.ndarray:
    """The places of all pixels, the greatest first; those of this map differ."""
    return np.argsort(-e.heatmap(resolution="image").ravel())


def hidden(e: Explanation, places: np.ndarray) -> np.ndarray:
    picture = np.array(e.images[0])
    picture.reshape(-1, 3)[places] = 0
    return picture


def test_insertion_and_deletion_one_picture_at_a_time(embedded: Explainer, answer: Explanation) -> None:
    found, places, steps = insertion_deletion(embedded, answer, steps=5), ranked(answer), range(6)
    counts = [384 * 384 * i // 5 for i in steps]
    pictures = [[hidden(answer, places[count:]), hidden(answer, places[:count])] for count in counts]
    expected = np.exp([[scored_pictures.scored(embedded, answer, each) for each in pair] for pair in pictures])
    np.testing.assert_allclose(found.insertion, expected[:, 0], atol=2e-3)
    np.testing.assert_allclose(found.deletion, expected[:, 1], atol=2e-3)
    means = expected.mean(2)
    areas = [sum((means[i, way] + means[i + 1, way]) / 2 / 5 for i in range(5)) for way in (0, 1)]
    assert found.areas == pytest.approx([*areas, means[:, 0].max()], abs=1e-3)
    assert found.shares == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1]) and found.fill == "black"


def test_perturbation_one_picture_at_a_time(embedded: Explainer, answer: Explanation) -> None:
    found, places = perturbation(embedded, answer, fill="black"), ranked(answer)
    whole = scored_pictures.scored(embedded, answer, np.array(answer.images[0])).mean()
    for curve, order in ((found.positive, places), (found.negative, places[::-1])):
        counts = [384 * 384 * i // 10 for i in range(10)]
        means = [scored_pictures.scored(embedded, answer, hidden(answer, order[:count])).mean() for count in counts]
        np.testing.assert_allclose(curve, np.exp(whole - np.array(means)), rtol=5e-3)
    assert found.positive_area == pytest.approx((np.sum(found.positive[1:-1]) + (1 + found.positive[-1]) / 2) / 9)
    assert found.positive_area > found.negative_area


def test_blind_maps_have_one_area_in_both_directions(embedded: Explainer, answer: Explanation) -> None:
    """A blank map hides pixels in random order, in both directions alike."""
    blank = replace(answer, sequence_map=torch.zeros_like(answer.sequence_map))
    found = insertion_deletion(embedded, blank, steps=8)
    again, other = (insertion_deletion(embedded, blank, steps=8, seed=seed) for seed in (0, 1))
    assert found == again and found != other
    drawn = [perturbation(embedded, blank, fill="mean", seed=seed) for seed in range(3)]
    positive, negative = (
        np.mean([getattr(each, name) for each in drawn]) for name in ("positive_area", "negative_area")
    )
    assert positive == pytest.approx(negative, rel=0.2)


def test_what_the_processor_crops_away_is_not_removed(embedded: Explainer, answer: Explanation) -> None:
    """A grid over the right half of the picture: only its pixels are ranked and hidden."""
    right = Grid(image=0, start=0, rows=12, columns=12, box=(192.0, 0.0, 384.0, 384.0))
    places = Places(answer, [right])
    assert places.count == 384 * 192
    (mask,) = places.masks(np.ones(places.count, bool))
    assert not mask[:, :192].any() and mask[:, 192:].all()
    assert np.array_equal(places.of(answer.sequence_map.numpy()), answer.heatmap(resolution="image")[:, 192:].ravel())
    with pytest.raises(InputError, match="sees nothing"):
        Places(answer, [replace(right, box=(400.0, 0.0, 500.0, 384.0))])


def test_large_and_several_pictures(embedded: Explainer, answer: Explanation) -> None:
    pictures = (answer.images[0].resize((1000, 250)), answer.images[0].resize((30, 31)))
    grids = (Grid(0, 0, 2, 2), Grid(1, 4, 2, 2))
    maps = {"token_maps": torch.rand(5, 8), "unfiltered_token_maps": torch.rand(5, 8)}
    sums = {"sequence_map": torch.arange(8.0), "unfiltered_sequence_map": torch.rand(8)}
    two = replace(answer, images=pictures, grids=grids, visual_positions=torch.arange(8), **maps, **sums)
    places = Places(two, grids)
    assert places.count == 384 * 96 + 30 * 31
    values = places.of(two.sequence_map.numpy())
    top = places.masks(values > 3.5 / 7)
    assert not top[0].any() and top[1].all() and top[0].shape == (96, 384) and top[1].shape == (31, 30)
    patches = places.patches(3)
    assert np.unique(patches).tolist() == [*range(18)]
    first, second = places.masks(patches == 9)
    assert not first.any() and second[:10, :10].all() and second.sum() == 100


def test_what_is_refused(embedded: Explainer, answer: Explanation) -> None:
    with pytest.raises(InputError, match="steps"):
        insertion_deletion(embedded, answer, steps=0)
    with pytest.raises(InputError, match="seed"):
        perturbation(embedded, answer, seed=-1)
