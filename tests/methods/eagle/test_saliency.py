"""Saliency and modality: the authors' values, their formulas written out, and what is flat."""

import eagle_cases
import numpy as np
import pytest
import torch

from dexar_fast.methods.eagle.modality import modality
from dexar_fast.methods.eagle.saliency import falling, region_saliency, token_saliency, walked
from dexar_fast.methods.eagle.search import search


@pytest.fixture(params=eagle_cases.names())
def case(request):
    return eagle_cases.cases()[request.param]


def test_the_walked_distance_is_theirs(case):
    """Their F of the empty picture has no lambdas, and their efficient search stores F without."""
    start = torch.from_numpy(1 - case["org_score"] + case["baseline_score"]).mean()
    ours = -walked(torch.from_numpy(case["smdl_score"]), start)
    assert np.allclose(ours, case["saliency_values"], rtol=0, atol=2e-7 * case.regions)


def test_the_modality_score_is_theirs(case):
    curves, areas = case.found, torch.from_numpy(case["region_area"])
    assert np.allclose(modality(curves, areas).perception, case["word_saliency"], rtol=0, atol=1e-7)


def test_their_painted_map_to_the_digits_of_float16():
    case = eagle_cases.cases()["qwen_rect6/sentence_exact"]
    painted = region_saliency(case.found).numpy()[eagle_cases.arrays()["qwen_rect6/labels"]]
    assert np.allclose(painted, case["saliency_float16"], rtol=0, atol=4e-3)


def by_hand(objective, start):
    """Walks the curve place by place."""
    values, before, distance = [], start, 0.0
    for now in objective:
        distance += abs(now - before)
        values.append(-distance)
        before = now
    low, high = min(values), max(values)
    return [0.0 if high == low else (value - low) / (high - low) for value in values]


def test_saliency_by_region_and_by_token_is_the_formula():
    case = eagle_cases.cases()["table/N16/exact_l1_2_l2_half"]
    curves = case.found
    insertion, deletion = curves.insertion.double(), curves.deletion.double()
    empty, full = curves.empty.double(), curves.full.double()
    of_tokens = (2 * insertion + 0.5 * (1 - deletion)).T
    starts = 2 * empty + 0.5 * (1 - full)
    tokens = token_saliency(curves)
    for token, (objective, start) in enumerate(zip(of_tokens.tolist(), starts.tolist(), strict=True)):
        assert np.allclose(tokens[token, curves.order], by_hand(objective, start), rtol=0, atol=1e-12)
    whole = by_hand(curves.objective.tolist(), float(starts.mean()))
    assert np.allclose(region_saliency(curves)[curves.order], whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("regions", [1, 2, 6])
def test_what_is_flat_has_no_saliency(regions):
    curves = search(lambda revealed: torch.full((len(revealed), 2), 0.5), regions)
    assert region_saliency(curves).tolist() == [0.0] * regions
    assert token_saliency(curves).tolist() == [[0.0] * regions] * 2
    assert modality(curves, torch.arange(1, regions + 1) / regions).perception.abs().max() < 1e-12


def test_saliency_runs_from_one_to_zero_along_the_order():
    saliency = falling(torch.tensor([0.5, 0.9, 0.8]), torch.tensor(0.1))
    assert saliency[0] == 1 and saliency[-1] == 0
    assert saliency[1] == pytest.approx(0.1 / 0.5)


def test_prior_and_perception_add_up_to_the_mean_of_the_curve():
    """A token of the language, and one of the picture."""
    curves = search(lambda revealed: torch.stack([torch.full((len(revealed),), 0.9), revealed.float().mean(1)], 1), 4)
    prior, perception = modality(curves, torch.arange(1, 5) / 4)
    assert prior.tolist() == pytest.approx([0.9, 0.0])
    assert perception.tolist() == pytest.approx([0.0, 0.5])


def test_of_a_cropped_picture_the_mean_is_over_what_is_seen():
    curves = search(lambda revealed: torch.stack([torch.full((len(revealed),), 0.9), revealed.float().mean(1)], 1), 4)
    prior, perception = modality(curves, torch.arange(1, 5) / 12)
    assert prior.tolist() == pytest.approx([0.9, 0.0])
    assert perception.tolist() == pytest.approx([0.0, 0.5])
