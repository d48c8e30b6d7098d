"""Every type with a real image processor here: what is measured, against painted regions.

The oracle knows no grid: of a picture in which one region is painted, the tokens that change most lie within a cell of
that region, and every region changes some.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
import types_places
import zoo
from PIL import Image
from transformers.utils import is_torchvision_available
from types_places import Asked
from videos import stacked

from dexar_fast import Explainer
from dexar_fast.generation.places.shown import AmongIds
from dexar_fast.vision.grid import Size

SIZES: dict[str, Size] = {"wide": (600, 200), "tall": (200, 560), "square": (300, 300), "usual": (640, 480)}
QUERIES = ("aria", "deepseek_ocr2", "idefics2")  # learned, so that no token has a part of its own
SLOW = ("got_ocr2", "granite_docling", "glm5_next", "inkling_mm_model", "qianfan_ocr", "pp_chart2table")
CASES = [
    pytest.param(name, size, marks=[pytest.mark.slow] if name in SLOW or size != [*SIZES][n % 4] else [])
    for n, name in enumerate(types_places.here())
    for size in SIZES
]


def painted(size: Size, region: tuple[int, int, int, int]) -> Image.Image:
    made = Image.new("RGB", size, (60, 60, 60))
    left, top, right, bottom = region
    noise = np.random.default_rng(0).integers(0, 256, (bottom - top, right - left, 3), np.uint8)
    if noise.size:
        made.paste(Image.fromarray(noise), region)  # even the patches of one colour are alike to some
    return made


def regions(size: Size) -> list[tuple[int, int, int, int]]:
    """Three, a sixth of each side: inside the middle square, too."""
    middle = (size[0] // 2, size[1] // 2)
    wide, high = size[0] // 6, size[1] // 6
    step = min(size) // 5
    return [
        (middle[0] + d, middle[1] + d, middle[0] + d + wide, middle[1] + d + high)
        for d in (-2 * step, -step // 2, step)
    ]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_painted_regions_change_the_tokens_that_lie_there(name: str, size: str) -> None:
    asked = Asked.of(name, [SIZES[size]])
    found = asked.found()
    if name in QUERIES:
        assert found.grids == () and found.how == "none"
        return
    check_paint(asked, found, [SIZES[size]])


def check_paint(asked: Asked, found: types_places.Layout, sizes: Sequence[Size]) -> None:
    places = types_places.cells(found, sizes)
    shown = AmongIds(asked.explainer, asked.request, asked.images, asked.declared.positions)
    grey = [painted(size, (0, 0, 0, 0)) for size in sizes]
    before = shown.wholly(shown.layers[0], grey)
    for image, size in enumerate(sizes):
        for region in regions(size):
            pictures = [*grey[:image], painted(size, region), *grey[image + 1 :]]
            change = (shown.wholly(shown.layers[0], pictures) - before).norm(dim=1)
            most = (change > 0.5 * change.max()).nonzero()[:, 0].tolist()
            assert most and change.max() > 0
            for token in set(most) & places.keys():
                where, (left, top, right, bottom) = places[token]
                x, y = right - left, bottom - top
                assert where == image
                assert region[0] - x < right and left < region[2] + x, (token, places[token], region)
                assert region[1] - y < bottom and top < region[3] + y, (token, places[token], region)
            assert len(set(most) & places.keys()) > len(most) / 2


@pytest.mark.parametrize(
    "name", [name for name in ("glm4v", "lighton_ocr", "cosmos3_edge") if name in types_places.here()]
)
def test_several_pictures_are_told_apart(name: str) -> None:
    sizes = [SIZES["wide"], SIZES["square"]]
    asked = Asked.of(name, sizes)
    found = asked.found()
    assert {grid.image for grid in found.grids} == {0, 1}
    check_paint(asked, found, sizes)


@pytest.mark.skipif(not is_torchvision_available(), reason="video processors need torchvision")
def test_frames_under_the_image_id_lie_in_their_steps() -> None:
    """GLM-4V writes the id of images for its frames, and joins two in a step."""
    model, reads = types_places.build("glm4v"), transformers.Glm4vVideoProcessor()
    processor = SimpleNamespace(image_processor=types_places.image_processor("glm4v")(), video_processor=reads)
    frames = [Image.effect_noise((160, 120), 80 + n).convert("RGB") for n in range(4)]
    made = reads([stacked(frames)], return_tensors="pt", do_sample_frames=False)
    count = int(made["video_grid_thw"][0, 1:].prod()) // 4
    step = [zoo.START, *[model.config.image_token_id] * count, zoo.END, 12]
    ids = torch.tensor([[zoo.BOS, *step, *step, 13]])
    kinds = {
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == model.config.image_token_id).int() * 2,
    }
    found = Explainer(model, processor).explain_inputs({"input_ids": ids, **kinds, **made}, [5, 6], images=frames)
    assert found.metadata["places"] == "checked"
    assert [(grid.image, grid.frames, grid.video) for grid in found.grids] == [(0, 2, True), (2, 2, True)]
    assert [(grid.rows, grid.columns, grid.box) for grid in found.grids] == [(4, 6, None)] * 2
