"""The two searches of EAGLE's authors, replayed on what their own model answered: the same to the tie."""

import eagle_cases
import numpy as np
import pytest

# Of equally good regions theirs places the first after an unstable sort, and records the scores of the first before it.
# Ours records those of the region it places.
OTHER_SCORES = {"table/N64/word1_eff_6_4_15": 15}


@pytest.fixture(params=eagle_cases.names())
def case(request):
    return eagle_cases.cases()[request.param]


def test_order_scores_and_forwards_are_theirs(case):
    found = case.found
    places = [k for k in range(case.regions) if k != OTHER_SCORES.get(case.name)]
    assert found.order.tolist() == case["order"].tolist()
    assert found.forwards == case["n_calls"]
    assert found.evaluated == len(case["masks"])
    for ours, theirs in ((found.insertion, "insertion"), (found.deletion, "deletion")):
        assert np.array_equal(ours[places], case[f"{theirs}_word_score"][places].astype(np.float32))
        assert np.array_equal(ours.mean(1)[places], case[f"{theirs}_score"][places].astype(np.float32))
    assert np.array_equal(found.full, case["org_score"].astype(np.float32))
    assert np.array_equal(found.empty, case["baseline_score"].astype(np.float32))
    if case.is_exact:
        assert np.array_equal(found.objective, case["smdl_score"].astype(np.float32))


def test_every_entry_belongs_to_the_regions_up_to_it(case):
    found = case.found
    for place in range(case.regions):
        revealed = np.isin(np.arange(case.regions), found.order[: place + 1])[None]
        insertion, deletion = (case.probabilities(found.order.new_tensor(m).bool()) for m in (revealed, ~revealed))
        assert np.array_equal(found.insertion[place], insertion[0])
        assert np.array_equal(found.deletion[place], deletion[0])


def test_all_settings_of_theirs_are_here():
    names = eagle_cases.names()
    assert len(names) > 50
    for part in ("ties16", "const6", "edge1", "word1", "counter0", "l1_2_l2_half", "eff_10_8_5", "eff_scope1_step100"):
        assert any(part in name for name in names)
