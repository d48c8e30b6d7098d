"""Where the visual tokens of an image lie."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dexar_fast import Explainer
from dexar_fast.families import UnknownLayout, centre_crop
from dexar_fast.geometry import layout
from dexar_fast.grid import Grid

CROP = {"do_center_crop": True, "do_resize": True, "crop_size": {"height": 336, "width": 336}}


def processor(**settings: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**CROP, "size": {"shortest_edge": 336}, **settings})


@pytest.mark.parametrize(
    ("size", "box"),
    [((336, 336), (0, 0, 336, 336)), ((768, 384), (192, 0, 576, 384)), ((100, 300), (0, 100, 100, 200))],
)
def test_a_centre_crop_sees_the_middle(size: tuple[int, int], box: tuple[float, ...]) -> None:
    assert centre_crop(size, processor()) == pytest.approx(box)


def test_without_a_crop_all_of_the_image_is_seen() -> None:
    assert centre_crop((768, 384), processor(do_center_crop=False)) == (0, 0, 768, 384)
    assert centre_crop((768, 384), processor(size={"height": 336, "width": 336})) == (0, 0, 768, 384)


def test_without_the_processor_a_crop_is_not_guessed() -> None:
    with pytest.raises(UnknownLayout, match="make the Explainer with the processor"):
        centre_crop((768, 384), None)


def test_a_crop_without_resizing_keeps_the_scale() -> None:
    assert centre_crop((768, 400), processor(do_resize=False)) == pytest.approx((216, 32, 552, 368))


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


IMAGE, VIDEO = 90, 91


def config(**more: Any) -> SimpleNamespace:
    """Of a family that is not in the table."""
    return SimpleNamespace(model_type="made_up", image_token_id=IMAGE, video_token_id=VIDEO, **more)


def prompt(*blocks: tuple[int, int]) -> torch.Tensor:
    """A text token before each (placeholder, count)."""
    return torch.tensor([[t for placeholder, count in blocks for t in (1, *[placeholder] * count)]])


def test_an_unknown_family_is_taken_for_one_square_an_image_and_says_so() -> None:
    inputs = {"input_ids": prompt((IMAGE, 9), (IMAGE, 9))}
    found = layout(config(), None, inputs, None)
    assert found.grids == (Grid(0, 0, 3, 3), Grid(1, 9, 3, 3))
    assert found.positions.tolist() == [*range(1, 10), *range(11, 20)]
    assert found.warning is not None and "'made_up' is not known" in found.warning


def test_images_side_by_side_are_told_apart_by_their_number() -> None:
    inputs = {"input_ids": prompt((IMAGE, 18))}
    found = layout(config(), None, inputs, [(5, 5), (8, 4)])
    assert found.grids == (Grid(0, 0, 3, 3), Grid(1, 9, 3, 3))


@pytest.mark.parametrize("blocks", [[(IMAGE, 8)], [(IMAGE, 9), (IMAGE, 4)]], ids=["no square", "of two lengths"])
def test_what_is_no_square_gets_no_grid_and_says_why(blocks: list[tuple[int, int]]) -> None:
    found = layout(config(), None, {"input_ids": prompt(*blocks)}, None)
    assert found.grids == ()
    assert found.warning is not None and "do not make" in found.warning


QWEN = {"model_type": "qwen2_5_vl", "image_token_id": IMAGE, "video_token_id": VIDEO}
QWEN_VISION = SimpleNamespace(spatial_merge_size=2, temporal_patch_size=2)


def qwen(*blocks: tuple[int, int], **grids: list[list[int]]) -> tuple[SimpleNamespace, dict[str, torch.Tensor]]:
    inputs = {"input_ids": prompt(*blocks)} | {name: torch.tensor(grid) for name, grid in grids.items()}
    return SimpleNamespace(**QWEN, vision_config=QWEN_VISION), inputs


def test_images_and_videos_in_one_prompt() -> None:
    """The frames count behind all images, wherever the video stands."""
    model, inputs = qwen(
        (IMAGE, 6), (VIDEO, 4), (IMAGE, 2), image_grid_thw=[[1, 4, 6], [1, 2, 4]], video_grid_thw=[[2, 2, 4]]
    )
    found = layout(model, None, inputs, [(9, 9)] * 5)
    video = (Grid(2, 6, 1, 2, frames=2, video=True), Grid(4, 8, 1, 2, video=True))
    assert found.grids == (Grid(0, 0, 2, 3), *video, Grid(1, 10, 1, 2))
    assert found.warning is None


@pytest.mark.parametrize(
    ("blocks", "sizes"),
    [([(IMAGE, 5)], None), ([(IMAGE, 6)], [(9, 9), (9, 9)]), ([(IMAGE, 3), (VIDEO, 3)], None)],
    ids=["a token is missing", "two images for one", "a video for an image"],
)
def test_what_does_not_add_up_gets_no_grid(blocks: list[tuple[int, int]], sizes: list[tuple[int, int]] | None) -> None:
    model, inputs = qwen(*blocks, image_grid_thw=[[1, 4, 6]], video_grid_thw=[[1, 4, 6]])
    found = layout(model, None, inputs, sizes)
    assert found.grids == () and found.warning is not None


def test_blocks_that_do_not_follow_the_order_of_the_inputs_get_no_grid() -> None:
    model, inputs = qwen((IMAGE, 3), (VIDEO, 6), (IMAGE, 3), image_grid_thw=[[1, 4, 6]], video_grid_thw=[[1, 4, 6]])
    found = layout(model, None, inputs, None)
    assert found.grids == () and "interleaved" in str(found.warning)
