"""Where the visual tokens of an image lie."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dexar_fast import Explainer
from dexar_fast.geometry import Grid, crop_box, square_grids

CROP = {"do_center_crop": True, "do_resize": True, "crop_size": {"height": 336, "width": 336}}


def processor(**settings: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**CROP, "size": {"shortest_edge": 336}, **settings})


@pytest.mark.parametrize(
    ("size", "box"),
    [((336, 336), (0, 0, 336, 336)), ((768, 384), (192, 0, 576, 384)), ((100, 300), (0, 100, 100, 200))],
)
def test_a_centre_crop_sees_the_middle(size: tuple[int, int], box: tuple[float, ...]) -> None:
    assert crop_box(size, processor()) == pytest.approx(box)


def test_without_a_crop_all_of_the_image_is_seen() -> None:
    assert crop_box((768, 384), processor(do_center_crop=False)) is None
    assert crop_box((768, 384), processor(size={"height": 336, "width": 336})) is None
    assert crop_box((768, 384), None) is None


def test_a_crop_without_resizing_keeps_the_scale() -> None:
    assert crop_box((768, 400), processor(do_resize=False)) == pytest.approx((216, 32, 552, 368))


def test_a_painted_patch_is_found_through_a_crop() -> None:
    """The embedded model with LLaVA-1.5's preprocessing: the map lies inside the crop, over the object there."""
    explainer = Explainer.from_pretrained(device="cpu")
    explainer.processor.image_processor.do_center_crop = True
    explainer.processor.image_processor.size = {"shortest_edge": 96}
    image = Image.new("RGB", (768, 384), (90, 110, 90))
    image.paste((215, 40, 40), (440, 200, 540, 300))
    found = explainer.explain(image, "Describe the image.", response="A red square.")
    assert found.grids[0].box == pytest.approx((192, 0, 576, 384))
    heat = found.heatmap(token=1, resolution="image")
    assert not heat[:, :190].any() and not heat[:, 578:].any()
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 200 - 32 <= row <= 300 + 32 and 440 - 32 <= column <= 540 + 32


def test_one_square_grid_for_each_run_of_a_square_image() -> None:
    positions = torch.cat([torch.arange(2, 11), torch.arange(13, 22)])
    found = square_grids(positions, {"pixel_values": torch.zeros(2, 3, 8, 8)}, images=2)
    assert found == (Grid(0, 0, 3, 3), Grid(1, 9, 3, 3))


@pytest.mark.parametrize(
    ("positions", "pixels", "images"),
    [
        (torch.arange(8), (1, 3, 8, 8), 1),  # eight tokens are no square
        (torch.arange(9), (1, 3, 8, 6), 1),  # the pixels are no square
        (torch.arange(9), (3, 3, 8, 8), 1),  # tiles
        (torch.arange(9), (9, 96), 1),  # patches in a row (Qwen-VL)
        (torch.arange(9), (1, 3, 8, 8), 2),  # one run for two images
    ],
)
def test_other_layouts_get_no_grid(positions: torch.Tensor, pixels: tuple[int, ...], images: int) -> None:
    assert square_grids(positions, {"pixel_values": torch.zeros(pixels)}, images=images) == ()
