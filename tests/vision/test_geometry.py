"""Where the visual tokens of an image lie."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dexar_fast import Explainer
from dexar_fast.vision.blocks import UnknownLayout
from dexar_fast.vision.geometry import layout
from dexar_fast.vision.grid import Grid
from dexar_fast.vision.squares import shown

WHOLE = (0, 0, 768, 384)
CROP = {"do_center_crop": True, "do_resize": True, "crop_size": {"height": 336, "width": 336}}


def processor(**settings: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**CROP, "size": {"shortest_edge": 336}, **settings})


@pytest.mark.parametrize(
    ("size", "box"),
    [((336, 336), (0, 0, 336, 336)), ((768, 384), (192, 0, 576, 384)), ((100, 300), (0, 100, 100, 200))],
)
def test_a_centre_crop_sees_the_middle(size: tuple[int, int], box: tuple[float, ...]) -> None:
    assert shown(size, processor(), 336) == pytest.approx(box)


def test_without_a_crop_all_of_the_image_is_seen() -> None:
    assert shown((768, 384), processor(do_center_crop=False, size={"height": 336, "width": 336}), 336) == WHOLE
    assert shown((768, 384), processor(size={"height": 336, "width": 336}), 336) == WHOLE


def test_a_crop_of_a_stretched_image() -> None:
    """As of BLIP's kind: brought to 384 x 384, of which the middle is cut out."""
    found = shown((768, 384), processor(size={"height": 384, "width": 384}), 336)
    assert found == pytest.approx((48, 24, 720, 360))


def test_without_the_processor_a_crop_is_not_guessed() -> None:
    with pytest.raises(UnknownLayout, match="make the Explainer with the processor"):
        shown((768, 384), None, 336)


def test_a_crop_without_resizing_keeps_the_scale() -> None:
    assert shown((768, 400), processor(do_resize=False), 336) == pytest.approx((216, 32, 552, 368))


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


@pytest.mark.parametrize("given", [None, [(40, 90)]], ids=["no size", "a size"])
@pytest.mark.parametrize("tokens", [36, 64, 256, 8], ids=["4 x 9", "queries", "a true square", "no square"])
def test_a_square_number_of_tokens_proves_nothing(tokens: int, given: list[tuple[int, int]] | None) -> None:
    """4 x 9 tokens are not 6 x 6, 64 learned queries not 8 x 8."""
    inputs = {"input_ids": prompt((IMAGE, tokens)), "pixel_values": torch.zeros(1, 3, 8, 8)}
    found = layout(config(), None, inputs, given)
    assert found.grids == () and len(found.positions) == tokens
    assert found.warning is not None and "'made_up'" in found.warning and "name no grid" in found.warning


def named(*grids: list[int], name: str = "image_grid_thw", tokens: list[int] | None = None) -> dict[str, torch.Tensor]:
    """Inputs that name the grid of each image; of merge 2 unless `tokens` says how many each has."""
    counts = tokens or [grid[-1] * grid[-2] // 4 for grid in grids]
    return {"input_ids": prompt(*((IMAGE, count) for count in counts)), name: torch.tensor(grids)}


@pytest.mark.parametrize("merge", [{"spatial_merge_size": 2}, {"merge_kernel_size": (2, 2)}, {"merge_size": 2}])
@pytest.mark.parametrize(("name", "grids"), [("image_grid_thw", [[1, 8, 18], [1, 4, 4]]), ("image_grid_hw", [[8, 18]])])
def test_a_grid_that_the_inputs_of_an_unknown_family_name_is_used(
    merge: dict[str, Any], name: str, grids: list[list[int]]
) -> None:
    model = config(vision_config=SimpleNamespace(**merge))
    found = layout(model, None, named(*grids, name=name), None)
    assert [(grid.rows, grid.columns) for grid in found.grids] == [(h // 2, w // 2) for *_, h, w in grids]
    assert found.warning is not None and "laid over all of each image" in found.warning


def test_a_merge_that_the_inputs_name_is_used() -> None:
    """VideoLLaMA 3: 1 by default, whatever the config says of its tower."""
    inputs = named([1, 4, 6], tokens=[24]) | {"image_merge_sizes": torch.tensor([1])}
    found = layout(config(vision_config=SimpleNamespace(patch_size=14)), None, inputs, None)
    assert [(grid.rows, grid.columns) for grid in found.grids] == [(4, 6)]


WRONG = {
    "newlines (HunyuanVL)": ([[1, 8, 6]], [4 * (3 + 1) + 2]),
    "newlines of the least image": ([[1, 2, 2]], [1 * (1 + 1) + 2]),
    "newlines (Hy-V4)": ([[1, 8, 6]], [4 * (3 + 1)]),
    "no merge (Inkling 2)": ([[1, 8, 6]], [48]),
    "two images, one of them not merged": ([[1, 4, 4], [1, 4, 4]], [4, 16]),
    "steps in time": ([[2, 4, 4]], [8]),
    "half cells": ([[1, 3, 4]], [3]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_named_grid_that_is_not_the_tokens_is_refused(case: str) -> None:
    grids, tokens = WRONG[case]
    found = layout(
        config(vision_config=SimpleNamespace(spatial_merge_size=2)), None, named(*grids, tokens=tokens), None
    )
    assert found.grids == () and found.warning is not None


@pytest.mark.parametrize("vision", [None, SimpleNamespace(patch_size=14)], ids=["no tower", "no merge"])
def test_without_a_merge_a_named_grid_is_not_guessed(vision: Any) -> None:
    found = layout(config(vision_config=vision), None, named([1, 4, 6], tokens=[24]), None)
    assert found.grids == () and "how many patches are one visual token" in str(found.warning)


@pytest.mark.parametrize("kind", ["kimi_k25", "glm5_next"])
def test_a_family_that_pads_to_whole_cells_has_no_place_yet(kind: str) -> None:
    vision = SimpleNamespace(spatial_merge_size=2)
    model = SimpleNamespace(model_type=kind, image_token_id=IMAGE, vision_config=vision)
    found = layout(model, None, named([1, 4, 6]), [(60, 35)])
    assert found.grids == () and "pads images" in str(found.warning)


@pytest.mark.parametrize("frames", ["image id", "video id"])
def test_a_video_of_an_unknown_family_has_no_place(frames: str) -> None:
    """GLM-4V writes its frames under the image id, in front of the picture or behind it."""
    token = IMAGE if frames == "image id" else VIDEO
    inputs = {"input_ids": prompt((token, 4), (IMAGE, 4)), "image_grid_thw": torch.tensor([[1, 4, 4]])}
    inputs["video_grid_thw"] = torch.tensor([[1, 4, 4]])
    found = layout(config(vision_config=SimpleNamespace(spatial_merge_size=2)), None, inputs, None)
    assert found.grids == () and found.warning is not None


@pytest.mark.parametrize("size", [(240, 80), (90, 80)])
def test_a_grid_of_another_shape_than_the_picture_is_refused(size: tuple[int, int]) -> None:
    """A photo that the model saw as it lies, or images in another order."""
    model = config(vision_config=SimpleNamespace(spatial_merge_size=2))
    assert layout(model, None, named([1, 24, 8]), [(80, 240)]).grids
    found = layout(model, None, named([1, 24, 8]), [size])
    assert found.grids == () and f"an image of {size[0]} x {size[1]} pixels does not make" in str(found.warning)


QWEN = {"model_type": "qwen2_5_vl", "image_token_id": IMAGE, "video_token_id": VIDEO}
QWEN_VISION = SimpleNamespace(spatial_merge_size=2, temporal_patch_size=2, patch_size=2)


def qwen(*blocks: tuple[int, int], **grids: list[list[int]]) -> tuple[SimpleNamespace, dict[str, torch.Tensor]]:
    inputs = {"input_ids": prompt(*blocks)} | {name: torch.tensor(grid) for name, grid in grids.items()}
    return SimpleNamespace(**QWEN, vision_config=QWEN_VISION), inputs


def video_pixels(repeated: bool) -> torch.Tensor:
    """[2 steps of 2 x 4 patches, 3 channels of 2 frames of 2 x 2 pixels]; repeated: the last two frames are one."""
    slots = torch.rand(16, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    if repeated:
        slots[8:, :, 1] = slots[8:, :, 0]
    return slots.flatten(1)


def test_images_and_videos_in_one_prompt() -> None:
    """The frames count behind all images, wherever the video stands; the last of an odd number is repeated."""
    model, inputs = qwen(
        (IMAGE, 6), (VIDEO, 4), (IMAGE, 2), image_grid_thw=[[1, 4, 6], [1, 2, 4]], video_grid_thw=[[2, 2, 4]]
    )
    inputs["pixel_values_videos"] = video_pixels(repeated=True)
    found = layout(model, None, inputs, [(9, 9)] * 5)
    video = (Grid(2, 6, 1, 2, frames=2, video=True), Grid(4, 8, 1, 2, video=True))
    assert found.grids == (Grid(0, 0, 2, 3), *video, Grid(1, 10, 1, 2))
    assert found.warning is None


@pytest.mark.parametrize("given", [3, 2, 5])
def test_a_forgotten_frame_of_a_video_is_noticed(given: int) -> None:
    """Three of four frames are not an odd video: its last two frames differ."""
    model, inputs = qwen((VIDEO, 4), video_grid_thw=[[2, 2, 4]])
    inputs["pixel_values_videos"] = video_pixels(repeated=False)
    assert len(layout(model, None, inputs, [(9, 9)] * 4).grids) == 2
    found = layout(model, None, inputs, [(9, 9)] * given)
    assert found.grids == () and f"{given} were given" in str(found.warning)


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
