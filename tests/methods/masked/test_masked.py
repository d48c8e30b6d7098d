"""Methods that hide regions: against plain forwards of hidden pictures, and Shapley values by all orders."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dexar_fast import Explainer
from dexar_fast.errors import InputError, LibraryError, NumericalError
from dexar_fast.methods.cut.hiding import cover
from dexar_fast.methods.masked import of_captum, rise
from dexar_fast.methods.masked.occlusion import Occlusion
from dexar_fast.methods.masked.of_captum import Captum
from dexar_fast.methods.masked.rise import Rise
from dexar_fast.methods.masked.shapley import Shapley, _by_coalitions, _by_orders

PROMPT, ANSWER = "Describe the image.", " A red circle."
LABELS = np.repeat(np.repeat(np.arange(4).reshape(2, 2), 24, 0), 24, 1)


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.open("dexar_fast/assets/sample.png").convert("RGB").resize((48, 48))


@pytest.fixture(scope="module")
def worth(embedded: Explainer, picture: Image.Image) -> Callable[[np.ndarray], Tensor]:
    """The log-probabilities [T] of the answer under a soft mask [48, 48] over a blur: one plain forward."""
    model, processor = embedded.model, embedded.processor
    pixels, blur = np.asarray(picture), cover(np.asarray(picture), "blur")
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}], add_generation_prompt=True
    )
    answer = embedded.explain(picture, PROMPT, ANSWER).token_ids

    def found(mask: np.ndarray) -> Tensor:
        mixed = mask[..., None] * pixels + (1 - mask[..., None]) * blur
        shown = Image.fromarray(mixed.round().astype(np.uint8))
        inputs = processor(images=shown, text=text, return_tensors="pt")
        ids = torch.cat([inputs["input_ids"], answer[None]], 1)
        with torch.no_grad():
            logits = model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0].double()
        scores = logits[-1 - len(answer) : -1].log_softmax(-1)
        return scores.gather(1, answer[:, None])[:, 0]

    return found


def of(embedded: Explainer, picture: Image.Image, method: Any) -> Any:
    return embedded.with_method(method).explain(picture, PROMPT, ANSWER)


def shown(*regions: int) -> np.ndarray:
    return np.isin(LABELS, regions).astype(np.float64)


def test_occlusion_is_the_fall_without_each_region(
    embedded: Explainer, picture: Image.Image, worth: Callable[[np.ndarray], Tensor]
) -> None:
    found = of(embedded, picture, Occlusion(labels=LABELS))
    whole = worth(shown(0, 1, 2, 3))
    falls = torch.stack([whole - worth(shown(*({0, 1, 2, 3} - {r}))) for r in range(4)], dim=1)
    torch.testing.assert_close(found.token_maps, falls.relu().float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.sequence_map, found.token_maps.sum(0))
    assert found.diagnostics["forwards"] == 5 and found.values == "regions"


def by_all_orders(worth: Callable[[frozenset[int]], Tensor], players: int) -> Tensor:
    """[T, M]: the definition, one order after the other."""
    gains = []
    for order in permutations(range(players)):
        worths = [worth(frozenset(order[:k])) for k in range(players + 1)]
        gained = {r: worths[k + 1] - worths[k] for k, r in enumerate(order)}
        gains.append(torch.stack([gained[r] for r in range(players)], 1))
    return torch.stack(gains).mean(0)


def test_shapley_values_of_all_coalitions_are_exact(
    embedded: Explainer, picture: Image.Image, worth: Callable[[np.ndarray], Tensor]
) -> None:
    known: dict[frozenset[int], Tensor] = {}

    def remembered(regions: frozenset[int]) -> Tensor:
        if regions not in known:
            known[regions] = worth(shown(*regions))
        return known[regions]

    expected = by_all_orders(remembered, 4)
    found = of(embedded, picture, Shapley(labels=LABELS, kind="kernel", samples=14))
    torch.testing.assert_close(found.token_maps, expected.relu().float(), rtol=1e-4, atol=1e-4)
    gain = torch.tensor(found.diagnostics["gain"]).double()
    torch.testing.assert_close(gain, expected.sum(1), rtol=1e-4, atol=1e-4)


def drawn_game(players: int, tokens: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A game of random worths, and its worth of none and of all."""
    worths = torch.randn(2**players, tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(players))
    powers = 2 ** torch.arange(players)
    return lambda shown: worths[(shown.long() * powers).sum(1)], worths[[0, -1]]


@pytest.mark.parametrize("estimate", [_by_orders, _by_coalitions])
@pytest.mark.parametrize("players", [1, 2, 5])
def test_estimates_come_near_the_definition_and_add_up(estimate: Any, players: int) -> None:
    game, ends = drawn_game(players, 3)

    def worth(regions: frozenset[int]) -> Tensor:
        return game(torch.tensor([[r in regions for r in range(players)]]))[0]

    found = estimate(game, ends, 6000, torch.Generator().manual_seed(0), players)
    torch.testing.assert_close(found.sum(1), ends[1] - ends[0])
    few = estimate(game, ends, 12, torch.Generator().manual_seed(0), players)
    torch.testing.assert_close(few.sum(1), ends[1] - ends[0])
    torch.testing.assert_close(found, by_all_orders(worth, players), rtol=0, atol=0.1)  # 5 standard errors


def test_drawn_coalitions_come_near_the_definition() -> None:
    """Nine players have 510 coalitions: 400 are drawn."""
    game, ends = drawn_game(9, 2)
    exact = _by_coalitions(game, ends, 510, torch.Generator(), 9)
    near = _by_coalitions(game, ends, 400, torch.Generator().manual_seed(1), 9)
    assert not torch.equal(near, exact)
    assert (near - exact).square().mean() < 0.2 * exact.square().mean()


@pytest.mark.parametrize("players", [3, 16])
def test_few_coalitions_favour_no_region(players: int) -> None:
    """Of a game to which all regions add alike, the fewest draws already tell: none is what the others leave."""
    ends = torch.tensor([[0.0, 1.0], [2.0, -3.0]], dtype=torch.float64)
    gain = ends[1] - ends[0]
    for seed in range(5):
        found = _by_coalitions(
            lambda shown: ends[0] + shown.double().mean(1, keepdim=True) * gain,
            ends,
            2 * (players - 1),
            torch.Generator().manual_seed(seed),
            players,
        )
        torch.testing.assert_close(found, (gain / players)[:, None].expand(-1, players))


def test_rise_is_the_weighted_mean_of_its_masks(
    embedded: Explainer, picture: Image.Image, worth: Callable[[np.ndarray], Tensor]
) -> None:
    method = Rise(labels=LABELS, samples=6, side=3, seed=4)
    found = of(embedded, picture, method)

    class Cut:
        labels = (LABELS,)

    masks = [method._masks(Cut(), i)[0].astype(np.float64) for i in range(6)]
    scores = torch.stack([worth(mask).exp() for mask in masks])
    expected = torch.zeros(len(found), 4, dtype=torch.float64)
    for mask, score in zip(masks, scores, strict=True):
        means = torch.tensor([mask[r == LABELS].mean() for r in range(4)])
        expected += (score - scores.mean(0))[:, None] * means / (6 * 0.5)
    torch.testing.assert_close(found.token_maps, expected.relu().float(), rtol=1e-3, atol=1e-5)


def test_rise_masks_are_soft_and_show_their_share() -> None:
    class Cut:
        labels = (np.zeros((60, 90)),)

    method = Rise(samples=200, side=4, share=0.3)
    masks = np.stack([method._masks(Cut(), i)[0] for i in range(200)])
    assert masks.shape == (200, 60, 90) and masks.min() >= 0 and masks.max() <= 1
    assert abs(masks.mean() - 0.3) < 0.03 and 0.2 < ((masks > 0) & (masks < 1)).mean() < 0.99
    assert np.array_equal(masks[7], method._masks(Cut(), 7)[0]) and not np.array_equal(masks[7], masks[8])


def test_rise_takes_every_seed() -> None:
    """Small ones stand beside their masks' numbers; of large ones no two, and no mask, begin alike."""

    class Cut:
        labels = (np.zeros((60, 90)),)

    assert [rise._seeded(seed, 3) for seed in (0, 4, 2**44 - 1)] == [3, (4 << 20) + 3, 2**64 - 2**20 + 3]
    seeds = (0, 1, 2**44, 2**44 + 1, 2**63, 2**64 - 1)
    masks = [Rise(seed=seed)._masks(Cut(), number)[0].tobytes() for seed in seeds for number in (0, 1)]
    assert len(set(masks)) == len(masks)


def test_captums_ablation_is_our_occlusion(embedded: Explainer, picture: Image.Image) -> None:
    ours = of(embedded, picture, Occlusion(labels=LABELS))
    theirs = of(embedded, picture, Captum(labels=LABELS, method="FeatureAblation"))
    torch.testing.assert_close(theirs.token_maps, ours.token_maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method", "samples"), [("ShapleyValueSampling", 60), ("KernelShap", 600)])
def test_captums_values_come_near_ours(embedded: Explainer, picture: Image.Image, method: str, samples: int) -> None:
    if method == "KernelShap":
        pytest.importorskip("sklearn")
    exact = of(embedded, picture, Shapley(labels=LABELS, kind="kernel", samples=14)).token_maps
    found = of(embedded, picture, Captum(labels=LABELS, method=method, samples=samples)).token_maps
    torch.testing.assert_close(found, exact, rtol=0, atol=0.2 * float(exact.max()))


def test_scikit_learn_that_is_missing_is_named(
    embedded: Explainer, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(LibraryError, match="needs scikit-learn: pip install scikit-learn"):
        of(embedded, picture, Captum(labels=LABELS, method="KernelShap", samples=4))


def test_captum_that_is_missing_is_named(
    embedded: Explainer, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(of_captum, "import_module", missing)
    with pytest.raises(LibraryError, match="pip install 'captum"):
        of(embedded, picture, Captum(labels=LABELS))


@pytest.mark.parametrize("method", [Shapley(labels=LABELS, samples=2), Rise(labels=LABELS, samples=4, side=2)])
def test_a_seed_gives_the_same_map_again(embedded: Explainer, picture: Image.Image, method: Any) -> None:
    first, again = (of(embedded, picture, method).token_maps for _ in range(2))
    assert torch.equal(first, again) and first.max() > 0


@pytest.mark.parametrize(
    ("method", "knobs", "message"),
    [
        (Occlusion, {"regions": 0}, "regions is a whole number"),
        (Occlusion, {"fill": "red"}, "fill is one of"),
        (Occlusion, {"segmentation": "cells"}, "segmentation is one of"),
        (Occlusion, {"batch": 0}, "batch is a whole number"),
        (Shapley, {"kind": "exact"}, "kind is one of"),
        (Shapley, {"samples": 0}, "samples is a whole number"),
        (Rise, {"share": 1.0}, "share lies between 0 and 1"),
        (Rise, {"side": 0}, "side is a whole number"),
        (Captum, {"method": "GradientShap"}, "method is one of"),
        (Captum, {"seed": -1}, "seed is a whole number"),
    ],
)
def test_bad_knobs_are_refused(method: Any, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        method(**knobs)


def test_fewer_coalitions_than_regions_are_refused(embedded: Explainer, picture: Image.Image) -> None:
    with pytest.raises(InputError, match="3 coalitions do not tell 4 regions apart: samples must be 6"):
        of(embedded, picture, Shapley(labels=LABELS, kind="kernel", samples=3))


def test_a_picture_is_needed(embedded: Explainer, picture: Image.Image) -> None:
    inputs = embedded.processor(images=picture, text="<image> What is it?", return_tensors="pt")
    with pytest.raises(InputError, match="takes the picture"):
        embedded.with_method(Occlusion()).explain_inputs(inputs, torch.tensor([5, 6]))


@pytest.mark.parametrize(
    "method", ["input-gradient", "attn-lrp", "rise:samples=2", "igos++:side=2,steps=1,iterations=1"]
)
def test_nan_in_the_model_is_no_fault_of_the_method(embedded: Explainer, picture: Image.Image, method: str) -> None:
    broken = copy.deepcopy(embedded.model)
    broken.model.language_model.layers[-1].mlp.down_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(NumericalError, match="check the model's weights"):
        Explainer(broken, embedded.processor, method=method).explain(picture, PROMPT, ANSWER)


def test_maps_are_float32_whatever_the_default_is(embedded: Explainer, picture: Image.Image) -> None:
    expected = of(embedded, picture, Rise(samples=2)).token_maps
    torch.set_default_dtype(torch.float64)
    try:
        found = of(embedded, picture, Rise(samples=2)).token_maps
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
