"""The knobs, the keys that count as text, and the arrays and diagnostics made of the pass's sums."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dexar_fast import InputError, NumericalError
from dexar_fast.attribution.sums import Attribution
from dexar_fast.attribution.text_keys import text_mask
from dexar_fast.results.assembly import arrays, check_finite, frequent, kept
from dexar_fast.settings import Settings, positive, settings

# Settings


def chosen(**knobs: Any) -> Settings:
    """Settings as an Explainer makes them."""
    return settings(**({"layers": None, "head_score": "max", "map_filter": None} | knobs))


def test_the_paper_is_the_default() -> None:
    assert chosen() == Settings(
        mode="paper",
        layers=None,
        layer_index=None,
        text_set="all",
        head_score="max",
        map_filter=None,
        sequence_norm="none",
    )


@pytest.mark.parametrize(
    ("knobs", "count", "layers"),
    [
        ({}, 4, [0, 1, 2, 3]),
        ({"layers": [2, 0]}, 4, [0, 2]),
        ({"layers": [-1, 3, 3]}, 4, [3]),
        ({"layers": [8, 1]}, 12, [1, 8]),
        ({"layers": range(1, 3)}, 4, [1, 2]),
        ({"layers": np.array([1])}, 4, [1]),
        ({"layers": torch.tensor([0, 1])}, 4, [0, 1]),
        ({"layer_index": 1}, 4, [1, 2, 3]),
        ({"layer_index": 0}, 4, [0, 1, 2, 3]),
        ({"layer_index": -1}, 4, [3]),
        ({"layer_index": -9}, 4, [0, 1, 2, 3]),
        ({"layer_index": np.int64(3)}, 4, [3]),
        ({"mode": "official"}, 12, list(range(2, 12))),
        ({"mode": "official"}, 4, [0, 1, 2, 3]),
        ({"mode": "official", "layer_index": 3}, 4, [3]),
        ({"mode": "official", "layers": [1]}, 4, [1]),
    ],
)
def test_which_layers_are_explained(knobs: dict[str, Any], count: int, layers: list[int]) -> None:
    found = chosen(**knobs).layers_of(count)
    assert found == layers
    assert json.loads(json.dumps(found)) == layers


@pytest.mark.parametrize("knobs", [{"layers": [0, 4]}, {"layers": [-5]}, {"layer_index": 4}])
def test_a_layer_out_of_range_is_refused_with_their_number(knobs: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="out of range: the model has at most 4 layers"):
        chosen(**knobs).layers_of(4)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"mode": "quick"}, "mode 'quick' is none of 'paper', 'official'"),
        ({"mode": ["paper"]}, "mode ['paper'] is none of"),
        ({"text_set": "some"}, "text_set 'some' is none of 'all', 'content', 'prompt', 'generated'"),
        ({"text_set": None}, "text_set None is none of"),
        ({"sequence_norm": True}, "sequence_norm True is none of 'none', 'token'"),
        ({"layers": [0], "layer_index": 0}, "layers or layer_index, not both"),
        ({"layers": []}, "layers is empty: name at least one"),
        ({"layers": 3}, "layers 3: number the layers"),
        ({"layers": "all"}, "layers 'all': number the layers"),
        ({"layers": [1.5]}, "layers [1.5]: number the layers"),
        ({"layers": [True]}, "layers [True]: number the layers"),
        ({"layer_index": "last"}, "number the layers"),
        ({"layer_index": 1.0}, "number the layers"),
        ({"head_score": "median"}, "head_score 'median' is none of 'max', 'mean', ('topk', k)"),
        ({"head_score": None}, "head_score None is none of"),
        ({"head_score": ("topk", 0)}, "with k >= 1"),
        ({"head_score": ("topk", True)}, "with k >= 1"),
        ({"head_score": ("topk", 2.0)}, "with k >= 1"),
        ({"head_score": ("topk",)}, "with k >= 1"),
        ({"head_score": ("rank", 3)}, "head_score ('rank', 3) is none of"),
        ({"map_filter": "median"}, "map_filter 'median' is neither None nor ('rank', k) with k from 1 to 9"),
        ({"map_filter": ("rank", 0)}, "k from 1 to 9"),
        ({"map_filter": ("rank", 10)}, "k from 1 to 9"),
        ({"map_filter": ("topk", 3)}, "map_filter ('topk', 3) is neither"),
        ({"map_filter": 5}, "map_filter 5 is neither"),
    ],
)
def test_an_unknown_value_is_refused_with_the_known_ones(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        chosen(**knobs)
    assert message in str(caught.value)


def test_lists_stand_for_tuples() -> None:
    """As they come out of JSON."""
    assert chosen(head_score=["topk", 3], map_filter=["rank", 5]) == Settings(
        head_score=("topk", 3), map_filter=("rank", 5)
    )


# Which keys count as text

VISUAL = torch.tensor([2, 3, 4])


def counted(prompt: int = 8, length: int = 11, content: Tensor | None = None, visual: Tensor = VISUAL, **knobs: Any):
    mask = text_mask(chosen(**knobs), prompt, length, visual, content)
    assert mask.shape == (length,)
    return mask.nonzero()[:, 0].tolist()


def test_all_that_is_not_visual_is_text() -> None:
    assert counted() == [0, 1, 5, 6, 7, 8, 9, 10]


def test_the_prompt_or_what_was_generated() -> None:
    assert counted(text_set="prompt") == [0, 1, 5, 6, 7]
    assert counted(text_set="generated") == [8, 9, 10]


def test_the_users_text_and_the_answer() -> None:
    assert counted(text_set="content", content=torch.tensor([1, 6])) == [1, 6, 8, 9, 10]
    assert counted(text_set="content", content=torch.tensor([], dtype=torch.long)) == [8, 9, 10]
    assert counted(text_set="content", content=torch.tensor([2, 6])) == [6, 8, 9, 10]  # 2 is visual


def test_content_needs_the_text() -> None:
    with pytest.raises(InputError, match=r"text_set='content' needs.*explain\(\)"):
        counted(text_set="content")


def test_the_authors_drop_the_key_behind_the_image() -> None:
    assert counted(mode="official") == [0, 1, 6, 7, 8, 9, 10]
    assert counted(mode="official", text_set="prompt") == [0, 1, 6, 7]


@pytest.mark.parametrize(("prompt", "text"), [(5, [0, 1, 4, 5, 6]), (6, [0, 1, 5, 6]), (7, [0, 1, 6])])
def test_the_authors_keep_the_last_key_of_the_prompt(prompt: int, text: list[int]) -> None:
    """Where the image ends the prompt it counts as text, too; one token behind the image, it is not dropped."""
    assert counted(prompt=prompt, length=7, mode="official") == text


# Arrays


def sums(tokens: int = 3, layers: int = 2, heads: int = 4, visual: int = 5, **changes: Any) -> Attribution:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    fields = {
        "visual_scores": draw(tokens, layers, heads),
        "text_scores": draw(tokens, layers, heads) / 2,
        "text_winners": torch.zeros(9, dtype=torch.long),
        "token_maps": draw(tokens, visual),
        "unfiltered_token_maps": draw(tokens, visual) * 10,
        "range": None,
    }
    return Attribution(**(fields | changes))


def test_weights_are_what_is_left_of_the_scores() -> None:
    given = sums()
    found = arrays(given, "none")
    difference = given.visual_scores - given.text_scores
    assert torch.equal(found["head_weights"], difference.clamp(min=0))
    assert (difference < 0).any() and (difference > 0).any()
    for t in range(3):
        delta = given.visual_scores[t].max() - given.text_scores[t].max()
        assert found["token_weights"][t] == max(delta, torch.zeros(()))
    assert torch.equal(found["token_maps"], given.token_maps)
    assert torch.equal(found["unfiltered_token_maps"], given.unfiltered_token_maps)


def test_a_token_the_text_outweighs_has_no_weight() -> None:
    given = sums()
    given.text_scores[1, 0, 3] = 7
    found = arrays(given, "none")
    assert found["token_weights"][1] == 0
    assert found["token_weights"][0] > 0
    rest = found["token_weights"][[0, 2]] @ given.token_maps[[0, 2]]
    torch.testing.assert_close(found["sequence_map"], rest)


def test_the_sequence_map_sums_token_maps_by_their_weights() -> None:
    given = sums()
    found = arrays(given, "none")
    wanted = sum(found["token_weights"][t] * given.token_maps[t] for t in range(3))
    torch.testing.assert_close(found["sequence_map"], wanted)
    torch.testing.assert_close(found["unfiltered_sequence_map"], given.unfiltered_token_maps.sum(0))  # no weights


def test_token_norm_scales_each_map_before_the_sum() -> None:
    given = sums()
    given.token_maps[1] = 4.0  # constant: nothing to show
    found = arrays(given, "token")
    wanted = torch.zeros(5, dtype=torch.float64)
    for t in (0, 2):
        row = given.token_maps[t]
        wanted += found["token_weights"][t] * (row - row.min()) / (row.max() - row.min())
    torch.testing.assert_close(found["sequence_map"], wanted)
    assert torch.equal(found["token_maps"], given.token_maps)  # raw all the same


def test_the_authors_range_rescales_the_maps_from_their_sums() -> None:
    """Sums of w G and of G, rescaled by one range, are the sums of w and of the rescaled G."""
    gradients = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    plain = sums()
    weights = (plain.visual_scores - plain.text_scores).relu()
    low, high = gradients.min(), gradients.max()
    given = sums(
        token_maps=(weights[..., None] * gradients).sum((1, 2)),
        unfiltered_token_maps=gradients.sum((1, 2)),
        range=torch.stack([low, high]),
    )
    found = arrays(given, "none")
    scaled = (gradients - low) / (high - low)
    torch.testing.assert_close(found["token_maps"], (weights[..., None] * scaled).sum((1, 2)))
    torch.testing.assert_close(found["unfiltered_token_maps"], scaled.sum((1, 2)))


def test_a_range_of_nothing_leaves_blank_maps() -> None:
    found = arrays(sums(range=torch.tensor([0.25, 0.25])), "none")
    for name in ("token_maps", "unfiltered_token_maps", "sequence_map", "unfiltered_sequence_map"):
        assert found[name].isfinite().all() and not found[name].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["visual_scores", "text_scores"])
def test_a_bad_score_names_the_first_layer_of_the_model(name: str, bad: float) -> None:
    given = sums(layers=3)
    getattr(given, name)[1, 1:, 2] = bad
    with pytest.raises(NumericalError, match=r"decoder layer 7 .*check the model's weights"):
        check_finite(given, [4, 7, 9])


@pytest.mark.parametrize("name", ["token_maps", "unfiltered_token_maps"])
def test_a_map_that_overflows_is_refused(name: str) -> None:
    given = sums()
    getattr(given, name)[2, 3] = float("inf")
    with pytest.raises(NumericalError, match="maps overflow: load the model in float32"):
        check_finite(given, [0, 1])


# Diagnostics

TEXTS = ["<s>", "USER", ":", "<image>", "What", "?", "a", "cat", "."]


def diagnosed(weights: list[float], heads: Tensor, winners: dict[int, int]) -> dict[str, Any]:
    counts = torch.zeros(len(TEXTS), dtype=torch.long)
    for position, count in winners.items():
        counts[position] = count
    found = kept({"head_weights": heads, "token_weights": torch.tensor(weights)})
    found["text_winners"] = frequent(counts, TEXTS.__getitem__)
    assert json.loads(json.dumps(found)) == found
    return found


def test_diagnostics_count_what_survives_the_filters() -> None:
    heads = torch.zeros(3, 2, 4)
    heads[0, 1, :2] = 0.5
    heads[2, 0, 3] = 0.1
    found = diagnosed([0.4, 0.0, 0.0], heads, {4: 6, 0: 15, 7: 3})
    assert found == {
        "tokens": 3,
        "tokens_with_weight": 1,
        "tokens_with_map": 2,
        "heads": 24,
        "heads_kept": 3,
        "text_winners": [
            {"position": 0, "token": "<s>", "share": 0.625},
            {"position": 4, "token": "What", "share": 0.25},
            {"position": 7, "token": "cat", "share": 0.125},
        ],
    }


def test_diagnostics_of_a_blank_explanation() -> None:
    found = diagnosed([0.0], torch.zeros(1, 2, 4), {})
    assert (found["tokens_with_weight"], found["tokens_with_map"], found["heads_kept"]) == (0, 0, 0)
    assert found["text_winners"] == []


def test_only_the_most_frequent_winners_are_named() -> None:
    found = diagnosed([0.1], torch.ones(1, 1, 1), {0: 1, 1: 2, 2: 3, 4: 4})
    assert [winner["position"] for winner in found["text_winners"]] == [4, 2, 1]
    assert sum(winner["share"] for winner in found["text_winners"]) == pytest.approx(0.9)


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3)])
def test_counts_are_whole_numbers_of_any_kind(value: Any) -> None:
    assert positive("chunk_size", value) == 3


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "3", None])
def test_what_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="chunk_size"):
        positive("chunk_size", value)


def test_numpys_integers_are_plain_ones() -> None:
    found = settings(head_score=["topk", np.int64(3)], map_filter=("rank", np.int32(5)))
    assert found.head_score == ("topk", 3) and found.map_filter == ("rank", 5)
    assert {type(found.head_score[1]), type(found.map_filter[1])} == {int}  # type: ignore[index]
