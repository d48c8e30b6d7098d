"""Occlusion, random weights, other pictures and noise: against slow versions; blind maps beside DEX-AR's."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import scored_pictures
import torch
from PIL import Image
from scipy.stats import spearmanr

from dexar_fast import Explainer, Explanation, InputError
from dexar_fast.data.shapes import draw_scene
from dexar_fast.evaluation.occlusion import agreement
from dexar_fast.evaluation.sanity import cascade, of_other_pictures
from dexar_fast.evaluation.stability import noised, stability

QUESTION, ANSWER = "What color is the cross?", "The cross is purple."


def mapped(explainer: Explainer, picture: Image.Image) -> torch.Tensor:
    return explainer.explain(picture, QUESTION, ANSWER).sequence_map


def test_occlusion_one_picture_at_a_time(embedded: Explainer, answer: Explanation) -> None:
    found = agreement(embedded, answer, side=3, fill="black")
    whole = scored_pictures.scored(embedded, answer, np.array(answer.images[0])).sum()
    own, falls, means = answer.heatmap(resolution="image"), [], []
    for row in range(3):
        for column in range(3):
            patch = np.s_[128 * row : 128 * (row + 1), 128 * column : 128 * (column + 1)]
            picture = np.array(answer.images[0])
            picture[patch] = 0
            falls.append(whole - scored_pictures.scored(embedded, answer, picture).sum())
            means.append(own[patch].mean())
    np.testing.assert_allclose(found.falls, falls, atol=0.01)
    np.testing.assert_allclose(found.means, means, rtol=1e-5)
    assert found.rank_correlation == pytest.approx(spearmanr(means, falls).statistic, abs=0.05)
    perfect = replace(answer, sequence_map=torch.zeros(144))
    assert agreement(embedded, perfect, side=3).rank_correlation == 0
    assert agreement(embedded, perfect, side=3).top_share == pytest.approx(2 / 9)


def test_the_weights_are_put_back_whatever_happens(embedded: Explainer) -> None:
    picture = draw_scene(9).image
    before = {name: weight.clone() for name, weight in embedded.model.state_dict().items()}
    calls: list[torch.Tensor] = []

    def explain() -> torch.Tensor:
        calls.append(mapped(embedded, picture))
        return calls[-1]

    found = cascade(embedded, explain)
    assert found.layers == [3, 2, 1, 0] and len(calls) == 5 and not torch.equal(calls[0], calls[-1])
    expected = [spearmanr(calls[0], each).statistic for each in calls[1:]]
    assert found.correlations == pytest.approx(expected)
    assert all(torch.equal(weight, before[name]) for name, weight in embedded.model.state_dict().items())
    calls.clear()

    def failing() -> torch.Tensor:
        if len(calls) == 2:
            raise ZeroDivisionError
        return explain()

    with pytest.raises(ZeroDivisionError):
        cascade(embedded, failing)
    assert all(torch.equal(weight, before[name]) for name, weight in embedded.model.state_dict().items())
    assert torch.equal(mapped(embedded, picture), calls[0])


def test_each_layer_keeps_its_own_values_in_other_places(embedded: Explainer) -> None:
    decoder = embedded.decoder
    assert decoder is not None
    real = [[weight.clone() for weight in layer.parameters()] for layer in decoder.layers]
    changed: list[list[bool]] = []

    def explain() -> np.ndarray:
        pairs = [[*zip(layer.parameters(), own, strict=True)] for layer, own in zip(decoder.layers, real, strict=True)]
        changed.append([not all(torch.equal(*pair) for pair in layer) for layer in pairs])
        for now, before in chain.from_iterable(pairs):
            assert torch.equal(now.flatten().sort().values, before.flatten().sort().values)
        return np.arange(3)

    assert cascade(embedded, explain).correlations == pytest.approx([1] * 4)  # a method that reads no weight
    assert changed == [[i >= 4 - done for i in range(4)] for done in range(5)]


def test_other_pictures(embedded: Explainer) -> None:
    pictures = [draw_scene(seed).image for seed in (9, 10, 11)]
    found = of_other_pictures(lambda picture: mapped(embedded, picture), pictures)
    maps = [mapped(embedded, picture) for picture in pictures]
    assert found == pytest.approx([spearmanr(maps[0], other).statistic for other in maps[1:]])
    centre = embedded.with_method("centre")
    assert of_other_pictures(lambda picture: mapped(centre, picture), pictures) == pytest.approx([1, 1])
    blind = iter(np.random.default_rng(0).random((201, 144)))
    drawn = of_other_pictures(lambda _: next(blind), [pictures[0]] * 201)
    assert drawn.mean() == pytest.approx(0, abs=0.02)


def test_noise(embedded: Explainer) -> None:
    picture = draw_scene(9).image
    found = stability(lambda noisy: mapped(embedded, noisy), picture, draws=2)
    rng = np.random.default_rng(0)
    maps = [mapped(embedded, noised(picture, 5, rng)) for _ in range(2)]
    expected = [spearmanr(mapped(embedded, picture), each).statistic for each in maps]
    assert found.correlations == pytest.approx(expected) and found.mean == pytest.approx(np.mean(expected))
    assert stability(lambda noisy: mapped(embedded, noisy), picture, noise=0, draws=1).correlations == pytest.approx(
        [1]
    )


def test_what_noise_does_to_a_picture() -> None:
    grey = Image.new("RGB", (200, 150), (128, 128, 128))
    noise = np.asarray(noised(grey, 5, np.random.default_rng(0)), float) - 128
    assert noise.mean() == pytest.approx(0, abs=0.1) and noise.std() == pytest.approx(5, abs=0.1)
    dark = np.asarray(noised(Image.new("RGB", (200, 150)), 5, np.random.default_rng(0)))
    assert dark.max() < 40 and (dark == 0).mean() == pytest.approx(0.54, abs=0.01)


def test_what_is_refused(embedded: Explainer, answer: Explanation) -> None:
    picture = draw_scene(9).image
    fresh = Explainer(embedded.model, embedded.processor)
    with pytest.raises(InputError, match="not known yet"):
        cascade(fresh, lambda: np.arange(3))
    with pytest.raises(InputError, match="no other picture"):
        of_other_pictures(lambda _: np.arange(3), [picture])
    with pytest.raises(InputError, match="noise"):
        stability(lambda _: np.arange(3), picture, noise=-1)
    with pytest.raises(InputError, match="side"):
        agreement(embedded, answer, side=1)
