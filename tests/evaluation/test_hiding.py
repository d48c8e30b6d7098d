"""Probabilities with parts of a picture hidden: against transformers alone, one picture at a time."""

from __future__ import annotations

import numpy as np
import pytest
import scored_pictures
import torch
import zoo
from asked import asked, greedy
from PIL import Image, ImageFilter

from dexar_fast import Explainer, Explanation, InputError, NumericalError
from dexar_fast.attribution.masked import MaskedForwards
from dexar_fast.data.shapes import draw_scene
from dexar_fast.evaluation.asking import answered
from dexar_fast.evaluation.hiding import probabilities
from dexar_fast.evaluation.visual_tokens import hidden_tokens, hiding
from dexar_fast.vision.grid import Grid


def some_masks(height: int, width: int, count: int = 3) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    noise = rng.random((count, 6, 6)) < 0.3
    masks = noise[:, np.arange(height) * 6 // height][:, :, np.arange(width) * 6 // width]
    return [[np.zeros((height, width), bool)], *([mask] for mask in masks), [np.ones((height, width), bool)]]


def covered(picture: np.ndarray, fill: str) -> np.ndarray:
    if fill == "blur":
        radius = 0.1 * max(picture.shape[:2])
        return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))
    colour = picture.reshape(-1, 3).mean(0).round() if fill == "mean" else np.zeros(3)
    return np.zeros_like(picture) + colour.astype(np.uint8)


@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
def test_pixels_as_transformers_alone_sees_them(embedded: Explainer, answer: Explanation, fill: str) -> None:
    picture = np.asarray(answer.images[0])
    masks = some_masks(*picture.shape[:2])
    with answered(embedded, answer) as request:
        found = probabilities(request, masks, fill, batch=2)
    shown = [np.where(mask[..., None], covered(picture, fill), picture) for (mask,) in masks]
    expected = [scored_pictures.scored(embedded, answer, each) for each in shown]
    np.testing.assert_allclose(np.log(found), expected, atol=2e-4)
    assert np.ptp(np.log(found), axis=0).max() > 0.5


def test_noise_is_the_same_each_time_and_hides(embedded: Explainer, answer: Explanation) -> None:
    masks = some_masks(384, 384, 0)
    with answered(embedded, answer) as request:
        found, again = probabilities(request, masks, "noise"), probabilities(request, masks[::-1], "noise")
    np.testing.assert_allclose(found, again[::-1], atol=1e-5)
    assert np.log(found[0]).sum() > np.log(found[1]).sum() + 1


def test_a_coarse_mask_hides_the_pixels_under_it(embedded: Explainer) -> None:
    picture = draw_scene(5).image.resize((301, 203))
    e = embedded.explain(picture, "Describe the image.", "A red circle.")
    mask = np.zeros((7, 5), bool)
    mask[2:4, 1] = mask[6, 4] = True
    with answered(embedded, e) as request:
        found = np.log(probabilities(request, [[mask]], "black"))[0]
    shown = np.array(picture)
    for y in range(203):
        for x in range(301):
            if mask[y * 7 // 203, x * 5 // 301]:
                shown[y, x] = 0
    np.testing.assert_allclose(found, scored_pictures.scored(embedded, e, shown), atol=2e-4)


def test_visual_tokens_by_embeddings_made_by_hand(embedded: Explainer, answer: Explanation) -> None:
    """144 tokens of 12 x 12 over a picture of 384: token (r, c) lies under pixel (32 r + 16, 32 c + 16)."""
    masks, model = some_masks(384, 384), embedded.model
    with answered(embedded, answer) as request:
        found = np.log(probabilities(request, masks, "tokens", batch=2))
    inputs = embedded.processor(images=answer.images[0], text=answer.metadata["prompt"], return_tensors="pt")
    ids = torch.cat([inputs["input_ids"], answer.token_ids[None]], 1)
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output[0]
        for row, (mask,) in zip(found, masks, strict=True):
            hidden = torch.from_numpy(mask[16::32, 16::32].ravel())
            embeds = model.get_input_embeddings()(ids)
            embeds[0, answer.visual_positions] = torch.where(hidden[:, None], seen.mean(0), seen)
            expected = scored_pictures.of_logits(model, answer, inputs, inputs_embeds=embeds)
            np.testing.assert_allclose(row, expected, atol=2e-4)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "mistral3", "paligemma"])
def test_tokens_of_other_families(family: str) -> None:
    """Nothing hidden: the plain answer. A picture of a batch is hidden as alone. All hidden: another answer."""
    model, inputs = zoo.build(family, torch.float64)
    targets = greedy(model, inputs, 4)
    masks = some_masks(12, 12)
    with asked(model, inputs, targets, images=[Image.new("RGB", (48, 48))]) as request:
        together = probabilities(request, masks, "tokens", batch=5)
        alone = np.concatenate([probabilities(request, [mask], "tokens", batch=1) for mask in masks])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    wanted = {name: value for name, value in inputs.items() if name != "labels"}
    written = model.generate(
        **wanted, max_new_tokens=4, min_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    scores = torch.stack(written.logits)[:, 0].softmax(-1)
    np.testing.assert_allclose(together[0], scores.gather(1, targets[:, None])[:, 0], rtol=1e-4)
    assert np.abs(together[-1] - together[0]).max() > 1e-4


def test_pictures_that_later_layers_see_are_refused() -> None:
    model, inputs = zoo.build("qwen3_vl", torch.float64)
    targets, picture = torch.tensor([5, 6]), Image.new("RGB", (48, 48))
    with asked(model, inputs, targets, images=[picture]) as request, pytest.raises(InputError, match="later ones"):
        probabilities(request, some_masks(12, 12), "tokens")


def test_the_hooks_are_gone_afterwards(embedded: Explainer, answer: Explanation) -> None:
    before = [len(module._forward_pre_hooks) for module in embedded.model.modules()]
    with (
        answered(embedded, answer) as request,
        pytest.raises(ZeroDivisionError),
        hiding(request.model, request.decoder, request.visual),
    ):
        assert [len(module._forward_pre_hooks) for module in embedded.model.modules()] != before
        raise ZeroDivisionError
    assert [len(module._forward_pre_hooks) for module in embedded.model.modules()] == before


def test_which_tokens_a_mask_hides() -> None:
    """A newline after each row is no cell; a box beyond the picture takes its nearest pixel."""
    grid = Grid(image=1, start=1, rows=2, columns=2, box=(0.0, 0.0, 8.0, 4.0), row_stride=3)
    mask = np.zeros((4, 8), bool)
    mask[1, 6] = mask[3, 2] = True
    found = hidden_tokens([grid], [(5, 5), (8, 4)], [np.ones((5, 5), bool), mask], 8)
    assert found.tolist() == [[False, False, True, False, True, False, False, False]]
    beyond = Grid(image=0, start=0, rows=1, columns=3, box=(-4.0, 0.0, 8.0, 4.0))
    mask = np.zeros((4, 8), bool)
    mask[2, 0] = True
    assert hidden_tokens([beyond], [(8, 4)], [mask], 3).tolist() == [[True, False, False]]


def test_what_is_refused(embedded: Explainer, answer: Explanation) -> None:
    masks = some_masks(8, 8)
    with answered(embedded, answer) as request, pytest.raises(InputError, match="fill is one of"):
        probabilities(request, masks, "white")
    with pytest.raises(InputError, match="not known"):
        hidden_tokens([], [(8, 8)], masks[0], 3)


def test_a_model_that_overflows_is_named(
    embedded: Explainer, answer: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MaskedForwards, "__call__", lambda self, count, make: torch.full((count, 5), torch.nan))
    with answered(embedded, answer) as request, pytest.raises(NumericalError, match="bfloat16"):
        probabilities(request, some_masks(8, 8), "black")
