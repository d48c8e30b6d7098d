"""Maps of regions combined: what one answer has over another, the ranks of several methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from dexar_fast import Explainer
from dexar_fast.combining import beyond, disagreement, mean_ranks
from dexar_fast.errors import InputError
from dexar_fast.methods.masked.occlusion import Occlusion

IMAGE, PROMPT, ANSWER = "dexar_fast/assets/sample.png", "Describe the image.", " A red triangle."


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained(method="occlusion:regions=16")


def test_what_one_answer_has_over_another_in_regions(embedded: Explainer) -> None:
    found = embedded.difference(IMAGE, PROMPT, ANSWER, " A blue square.")
    one, other = (embedded.explain(IMAGE, PROMPT, answer) for answer in (ANSWER, " A blue square."))
    shares = [each.sequence_map / each.sequence_map.sum() for each in (one, other)]
    torch.testing.assert_close(found[0].sequence_map, (shares[0] - shares[1]).relu())
    assert found[0].grids == one.grids


def test_as_many_other_regions_are_refused(embedded: Explainer) -> None:
    one = embedded.explain(IMAGE, PROMPT, ANSWER)
    width, height = one.images[0].size
    stripes = (np.arange(width) * 16 // width)[None].repeat(height, 0)
    other = embedded.with_method(Occlusion(labels=stripes)).explain(IMAGE, PROMPT, ANSWER)
    assert one.sequence_map.shape == other.sequence_map.shape
    with pytest.raises(InputError, match="different cells"):
        beyond(one, other)


def test_ranks_of_regions_are_of_their_means_in_any_order(embedded: Explainer) -> None:
    """Each quarter of one method is read in the four finer regions that lie in it."""
    fine = embedded.explain(IMAGE, PROMPT, ANSWER)
    coarse = embedded.with_method("occlusion:regions=4").explain(IMAGE, PROMPT, ANSWER)
    quarters = np.kron(np.arange(4).reshape(2, 2), np.ones((2, 2), int)).ravel()
    ranks = np.stack([rankdata(each) - 1 for each in (fine.sequence_map, coarse.sequence_map[quarters])]) / 15
    for combine, expected in ((mean_ranks, ranks.mean(0)), (disagreement, ranks.std(0))):
        for order in ([fine, coarse], [coarse, fine]):
            found = combine(order, ["a", "b"])
            assert found.grids == fine.grids
            np.testing.assert_allclose(found.sequence_map, expected, atol=1e-6)
