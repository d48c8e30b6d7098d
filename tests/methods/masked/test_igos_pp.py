"""iGOS++ against a plain version of its search on the embedded model; where a mask cannot blend, it says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from dexar_fast import Explainer
from dexar_fast.errors import InputError
from dexar_fast.methods.cut.hiding import cover
from dexar_fast.methods.masked.blending import blending
from dexar_fast.methods.masked.igos_pp import IgosPp
from dexar_fast.methods.masked.mask_search import edges_of, regular
from dexar_fast.prompt.remade.pixels import Pixels

PROMPT, ANSWER = "Describe the image.", " A red triangle"


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.open("dexar_fast/assets/sample.png").convert("RGB")


def plain_variation(mask: torch.Tensor, edges: tuple[torch.Tensor, torch.Tensor], l2: float) -> float:
    """The regulariser, cell by cell."""
    cells, large = mask.numpy(), interpolate(mask[None, None], scale_factor=8, mode="bilinear")[0, 0].numpy()
    rows, columns = cells.shape
    small = np.mean([(cells[r + 1, c] - cells[r, c]) ** 2 for r in range(rows - 1) for c in range(columns)])
    small += np.mean([(cells[r, c + 1] - cells[r, c]) ** 2 for r in range(rows) for c in range(columns - 1)])
    fine = np.mean(edges[0].numpy() * (large[1:] - large[:-1]) ** 2)
    fine += np.mean(edges[1].numpy() * (large[:, 1:] - large[:, :-1]) ** 2)
    return float(np.mean(np.abs(1 - cells)) + l2 * np.sum((1 - cells) ** 2) + 10 * (small + fine) / 2)


def test_the_regulariser_is_its_formula(picture: Image.Image) -> None:
    mask = torch.rand(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    edges = edges_of(picture, 5)
    assert [list(edge.shape) for edge in edges] == [[39, 40], [40, 39]]
    assert float(regular(mask, edges, 0.3)) == pytest.approx(plain_variation(mask, edges, 0.3), rel=1e-5)
    assert float(regular(torch.ones(5, 5), edges, 0.3)) == 0


def plain_search(embedded: Explainer, picture: Image.Image, side: int, token: int, swaps: bool) -> torch.Tensor:
    """Three iterations of two steps without noise, masks enlarged to the processed picture by interpolation."""
    model, processor = embedded.model, embedded.processor
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}], add_generation_prompt=True
    )
    other = Image.fromarray(cover(np.asarray(picture), "blur"))
    inputs, hidden = (processor(images=image, text=text, return_tensors="pt") for image in (picture, other))
    answer = embedded.explain(picture, PROMPT, ANSWER).token_ids
    ids, x, b = torch.cat([inputs["input_ids"], answer[None]], 1), inputs["pixel_values"], hidden["pixel_values"]

    def up(mask: torch.Tensor) -> torch.Tensor:
        return interpolate(mask[None, None], x.shape[-2:], mode="bilinear", align_corners=False)

    def mean_score(mask: torch.Tensor, swapped: bool) -> torch.Tensor:
        total = 0
        for k in (1, 2):
            first, second = (b, x) if swapped else (x, b)
            logits = model(input_ids=ids, pixel_values=first * mask * k / 2 + second * (1 - mask * k / 2)).logits[0]
            total = total + logits.log_softmax(-1)[token - 1 - len(answer), answer[token]] / 2
        return total

    masks = [torch.ones(side, side, requires_grad=True) for _ in range(2)]
    last, l2 = [torch.zeros(side, side)] * 2, 0.1
    for i in range(3):
        l2 *= np.exp(-i)
        d, m = up(masks[0]), up(masks[1])
        loss = (mean_score(d * m, False) - mean_score(d * m, swaps) + mean_score(d, False) - mean_score(m, swaps)) / 2
        loss = loss + regular(masks[0] * masks[1], edges_of(picture, side), l2)
        ahead = [(x - 10 * g).detach() for x, g in zip(masks, torch.autograd.grad(loss, masks), strict=True)]
        masks = [
            (y + i / (i + 5) * (y - before)).clamp(0, 1).requires_grad_() for y, before in zip(ahead, last, strict=True)
        ]
        last = ahead
    found = 1 - (masks[0] * masks[1]).detach()
    return (found - found.min()) / (found.max() - found.min())


@pytest.mark.parametrize("variant", ["paper", "eagle"])
def test_maps_are_those_of_a_plain_search(embedded: Explainer, picture: Image.Image, variant: str) -> None:
    method = IgosPp(tokens=[2], side=4, steps=2, iterations=3, noise=0, variant=variant)
    found = embedded.with_method(method).explain(picture, PROMPT, ANSWER)
    expected = plain_search(embedded, picture, 4, 2, swaps=variant == "paper")
    assert found.token_maps[0].abs().sum() == 0 and found.token_maps.shape == (3, 16)
    assert expected.max() == 1
    torch.testing.assert_close(found.token_maps[2].view(4, 4), expected, rtol=0, atol=0.03)


def test_a_blend_is_a_blend_of_the_processed_pictures(embedded: Explainer, picture: Image.Image) -> None:
    """Values are blended by the mask at their place in the picture: bilinear, as `interpolate` enlarges it."""
    inputs = embedded.processor(images=picture, text="<image>", return_tensors="pt")
    other = Image.fromarray(cover(np.asarray(picture), "black"))
    found = blending(Pixels(embedded.processor, inputs, [picture]), picture, other, torch.device("cpu"))
    x, b = found.shown["pixel_values"], found.hidden["pixel_values"]
    torch.testing.assert_close(found([torch.ones(3, 3)])["pixel_values"], x)
    torch.testing.assert_close(found([torch.ones(3, 3)], swapped=True)["pixel_values"], b)
    torch.testing.assert_close(found([torch.ones(3, 3)], 0.25)["pixel_values"], 0.25 * x + 0.75 * b)
    mask = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    large = interpolate(mask[None, None], x.shape[-2:], mode="bilinear", align_corners=False)
    expected = large * x + (1 - large) * b
    assert (found([mask])["pixel_values"] - expected).abs().max() < 0.02 * (x - b).abs().max()


def test_masks_of_the_cpu_blend_pixels_of_another_device(embedded: Explainer, picture: Image.Image) -> None:
    """The meta device stands for a GPU: it refuses to be mixed with the CPU, too."""
    inputs = embedded.processor(images=picture, text="<image>", return_tensors="pt")
    blend = blending(Pixels(embedded.processor, inputs, [picture]), picture, picture, torch.device("meta"))
    found = blend([torch.ones(3, 3)] * 2, 0.5, swapped=True)["pixel_values"]
    assert found.device.type == "meta" and found.shape == inputs["pixel_values"].shape


def test_the_seed_makes_the_noise(embedded: Explainer, picture: Image.Image) -> None:
    runs = [
        embedded.with_method(IgosPp(tokens=[], side=4, steps=1, iterations=2, seed=seed)).explain(
            picture, PROMPT, ANSWER
        )
        for seed in (0, 0, 1)
    ]
    first, again, other = (run.sequence_map for run in runs)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.min() == 0 and first.max() == 1


def test_several_pictures_are_refused(embedded: Explainer, picture: Image.Image) -> None:
    with pytest.raises(InputError, match="masks one picture, and the request has 2"):
        embedded.with_method(IgosPp(side=4)).explain([picture, picture], PROMPT, ANSWER)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"side": 0}, "side is a whole number"),
        ({"steps": 0}, "steps is a whole number"),
        ({"noise": -1}, "noise is a finite number"),
        ({"fill": "tokens"}, "fill is one of"),
        ({"variant": "original"}, "variant is one of"),
        ({"tokens": "1"}, "tokens is a list"),
    ],
)
def test_bad_knobs_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        IgosPp(**knobs)


def test_a_token_beyond_the_answer_is_refused(embedded: Explainer, picture: Image.Image) -> None:
    with pytest.raises(InputError, match="must name tokens of the answer, 0 to 2"):
        embedded.with_method(IgosPp(tokens=[3], side=4)).explain(picture, PROMPT, ANSWER)
