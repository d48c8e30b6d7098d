"""Where the visual tokens of every family lie, against the pixels that they receive.

The oracle owes nothing to geometry.py: an image is painted, the real image processor and the model's own packing code
(made linear, see linear_vision.py) say by how much each visual token changed, and that is the share of its cell that
the paint covers. That holds up to the blur of the resizes between the original and the model: `stages` of them, each
with a kernel that reaches at most three pixels (Lanczos) of the coarser of its two sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import processors
import pytest
import torch
from linear_vision import NEWLINE
from numpy.typing import NDArray
from PIL import Image
from processors import COMBINED, COMBINED_VIDEO, IMAGES, VIDEOS, Family
from torch import Tensor
from transformers.utils import is_torchvision_available

from dexar_fast import Explanation
from dexar_fast.vision.geometry import Layout, layout
from dexar_fast.vision.grid import Grid

Box = tuple[float, float, float, float]

SIZES = {
    "wide": (1200, 400),
    "tall": (400, 1200),
    "square": (640, 640),
    "tiny": (40, 30),
    "large": (3000, 2000),
    "odd": (777, 333),
}
# In fractions of the image: two corners, a tall and a wide region and one inside the centre crop of any of the sizes.
REGIONS = [
    (0.0, 0.0, 0.18, 0.22),
    (0.80, 0.85, 1.0, 1.0),
    (0.62, 0.16, 0.74, 0.33),
    (0.28, 0.60, 0.58, 0.72),
    (0.40, 0.36, 0.52, 0.50),
]
SPOT = REGIONS[-1]
GREY, PAINT = 40, 210
KERNEL = 3  # pixels that the widest kernel reaches to either side (Lanczos)


@lru_cache
def family(name: str) -> Family:
    return (IMAGES | VIDEOS | {"onevision_nested": processors.onevision_nested})[name]()


def grey(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size, (GREY,) * 3)


def region(fractions: Box, size: tuple[int, int]) -> Box:
    """In whole pixels, at least one."""
    left, right = (round(fractions[i] * size[0]) for i in (0, 2))
    top, bottom = (round(fractions[i] * size[1]) for i in (1, 3))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def painted(size: tuple[int, int], regions: Sequence[Box]) -> Image.Image:
    image = grey(size)
    for box in regions:
        left, top, right, bottom = map(int, box)
        image.paste((PAINT,) * 3, (left, top, right, bottom))
    return image


def grids_of(made: Layout) -> tuple[Grid, ...]:
    assert made.warning is None
    assert made.grids
    return made.grids


@dataclass(frozen=True)
class Scene:
    """Images (or frames) that are all grey, and what the geometry says of them."""

    family: Family
    sizes: list[tuple[int, int]]
    layout: Layout
    before: Tensor

    @classmethod
    def of(cls, name: str, sizes: list[tuple[int, int]]) -> Scene:
        inputs = family(name).process([grey(size) for size in sizes])
        made = layout(family(name).config, family(name).processor, inputs, sizes)
        assert made.positions.tolist() == placeholders(family(name).config, inputs["input_ids"])
        scene = cls(family(name), sizes, made, family(name).features(inputs))
        assert len(scene.before) == len(made.positions)
        return scene

    def change(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[N] of each visual token, once these images replace the grey ones; 1 where all of its pixels are painted."""
        after = self.family.features(self.family.process(images))
        return ((after - self.before) / self.family.contrast(PAINT - GREY)).numpy()

    def box(self, grid: Grid) -> Box:
        return grid.box or (0, 0, *self.sizes[grid.image])


def placeholders(config: Any, input_ids: Tensor) -> list[int]:
    wanted = {getattr(config, name, None) for name in ("image_token_id", "video_token_id")}
    return [position for position, one in enumerate(input_ids[0].tolist()) if one in wanted]


def scenes() -> Iterator[tuple[str, str]]:
    """Of BakLLaVA and VipLLaVA one each: their processor is LLaVA's."""
    for name in IMAGES:
        for size in ["wide"] if name in ("bakllava", "vipllava") else SIZES:
            yield name, size


@pytest.fixture(scope="module", params=scenes(), ids="-".join)
def scene(request: pytest.FixtureRequest) -> Scene:
    """Once for all tests of one family and one size."""
    name, size = request.param
    return Scene.of(name, [SIZES[size]])


# What a region covers


def share(low: float, high: float, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """[cells] of each cell between consecutive edges, the share between `low` and `high`."""
    covered = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return np.clip(covered / np.diff(edges), 0, 1)


def coverage(regions: Sequence[Box], box: Box, rows: int, columns: int, margin: NDArray[Any]) -> NDArray[Any]:
    """[rows, columns] the share of each cell that the regions cover, once they grow by a margin (x, y) on all sides."""
    xs, ys = np.linspace(box[0], box[2], columns + 1), np.linspace(box[1], box[3], rows + 1)
    total = np.zeros((rows, columns))
    for left, top, right, bottom in regions:
        across = share(left - margin[0], right + margin[0], xs)
        total += np.outer(share(top - margin[1], bottom + margin[1], ys), across)
    return np.clip(total, 0, 1)


def check_coverage(scene: Scene, grid: Grid, change: NDArray[np.float32], regions: Sequence[Box]) -> None:
    """Each cell changed by the share that the regions cover of it, and beyond the reach of the kernels none did.

    An edge may be off by a few hundredths of a cell, of a small cell by a seventh of a pixel for every resize (rounded
    sizes, ringing), and by the slack that is documented for the grid.
    """
    box, seen = scene.box(grid), change[grid.cells]
    cell = np.array([(box[2] - box[0]) / grid.columns, (box[3] - box[1]) / grid.rows])
    pixel = scene.family.stages * np.maximum(1, cell / scene.family.pixels)
    slack = scene.family.slack * cell if loose(scene, grid) else 0 * cell
    margins = -slack, slack, KERNEL * pixel + 2 * slack
    low, high, far = (coverage(regions, box, grid.rows, grid.columns, margin) for margin in margins)
    blur = 0.01 + 0.15 * (pixel / cell).max()
    assert (seen <= high + blur).all(), where(seen - high, grid)
    assert (seen >= low - blur).all(), where(low - seen, grid)
    assert np.abs(seen[far == 0]).max(initial=0) < 1e-4, where(np.abs(seen) * (far == 0), grid)


def loose(scene: Scene, grid: Grid) -> bool:
    """Whether the documented slack is of this grid: of LLaVA-OneVision's, those with newlines and the videos'."""
    return grid.row_stride is not None or scene.family.name == "onevision_video"


def where(excess: NDArray[Any], grid: Grid) -> str:
    row, column = np.unravel_index(excess.argmax(), excess.shape)
    return f"off by {excess.max():.3f} at row {row}, column {column} of {grid}"


def check_tokens(scene: Scene) -> None:
    """Every visual token but the newlines is one cell of one grid."""
    cells = np.sort(np.concatenate([grid.cells.ravel() for grid in grids_of(scene.layout)]))
    assert cells.tolist() == (scene.before != NEWLINE).nonzero()[:, 0].tolist()


# Paint


def test_every_visual_token_is_one_cell(scene: Scene) -> None:
    check_tokens(scene)
    assert {image for grid in scene.layout.grids for image in grid.images} == {0}


def test_painted_regions_change_the_cells_that_cover_them(scene: Scene) -> None:
    regions = [region(fractions, scene.sizes[0]) for fractions in REGIONS]
    change = scene.change([painted(scene.sizes[0], regions)])
    for grid in grids_of(scene.layout):
        check_coverage(scene, grid, change, regions)


def test_the_peak_of_the_map_lies_on_the_paint(scene: Scene) -> None:
    spot = region(SPOT, scene.sizes[0])
    image = painted(scene.sizes[0], [spot])
    check_peak(scene, scene.change([image]), spot, 0, [image])


def check_peak(scene: Scene, change: NDArray[np.float32], spot: Box, index: int, images: Sequence[Image.Image]) -> None:
    """Within one cell of the coarsest grid of that image."""
    heat = explanation(scene.layout, change, images).heatmap(0, resolution="image", image=index)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    mine = [(scene.box(grid), grid) for grid in grids_of(scene.layout) if index in grid.images]
    width = max((box[2] - box[0]) / grid.columns for box, grid in mine)
    height = max((box[3] - box[1]) / grid.rows for box, grid in mine)
    assert spot[0] - width <= column + 0.5 <= spot[2] + width
    assert spot[1] - height <= row + 0.5 <= spot[3] + height


def explanation(made: Layout, change: NDArray[np.float32], images: Sequence[Image.Image]) -> Explanation:
    """One token, whose map is the change."""
    maps = torch.from_numpy(change).clamp(min=0)[None]
    one = torch.ones(1)
    return Explanation(
        token_ids=torch.zeros(1, dtype=torch.int64),
        tokens=["it"],
        visual_positions=made.positions,
        **dict.fromkeys(("visual_scores", "text_scores", "head_weights"), one[:, None, None]),
        token_weights=one,
        token_maps=maps,
        unfiltered_token_maps=maps,
        sequence_map=maps[0],
        unfiltered_sequence_map=maps[0],
        grids=made.grids,
        diagnostics={},
        metadata={},
        images=tuple(images),
    )


@pytest.mark.parametrize("size", [(1, 1), (3, 420), (500, 4)], ids=str)
@pytest.mark.parametrize("name", [*IMAGES, "onevision_nested"])
def test_a_speck_and_a_strip_have_a_map(name: str, size: tuple[int, int]) -> None:
    """No empty grid, though LLaVA-NeXT and OneVision cut off all columns of a thin strip but the newlines."""
    made = family(name)
    image = grey(size)
    found = layout(made.config, made.processor, made.process([image]), [size])
    cells = np.concatenate([grid.cells.ravel() for grid in grids_of(found)])
    assert len(set(cells.tolist())) == len(cells) <= len(found.positions)
    for grid in found.grids:
        left, top, right, bottom = grid.box or (0, 0, *size)
        assert grid.rows > 0 < grid.columns and left < right and top < bottom
    heat = explanation(found, np.arange(len(found.positions), dtype=np.float32), [image]).heatmap(0, resolution="image")
    assert heat.shape == size[::-1] and np.isfinite(heat).all()


# Several images in one prompt


@pytest.mark.parametrize("name", [*IMAGES, "onevision_nested"])
def test_each_of_several_images_has_its_own_grids(name: str) -> None:
    """A tall, a wide and a small one, each painted in its own way; the last one not at all."""
    sizes = [(300, 500), (640, 320), (90, 100)]
    scene = Scene.of(name, sizes)
    check_tokens(scene)
    assert {image for grid in scene.layout.grids for image in grid.images} == {0, 1, 2}
    regions = [[region(fractions, size) for fractions in REGIONS] for size in sizes]
    regions = [regions[0], regions[1][1:4], []]
    change = scene.change([painted(size, boxes) for size, boxes in zip(sizes, regions, strict=True)])
    for grid in scene.layout.grids:
        check_coverage(scene, grid, change, regions[grid.image])


# Videos


@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.parametrize("count", [4, 5])
def test_a_painted_frame_changes_the_cells_of_its_own_grid(name: str, count: int) -> None:
    """Every frame in turn, the last of an odd number too; a cell of two frames changes by half."""
    size = (420, 240)
    scene = Scene.of(name, [size] * count)
    check_tokens(scene)
    assert sorted(image for grid in scene.layout.grids for image in grid.images) == list(range(count))
    regions = [region(fractions, size) for fractions in REGIONS]
    for frame in range(count):
        frames = [grey(size) for _ in range(count)]
        frames[frame] = painted(size, regions)
        change = scene.change(frames)
        for grid in scene.layout.grids:
            mine = frame in grid.images
            check_coverage(scene, grid, change * (grid.frames if mine else 1), regions if mine else [])


@pytest.mark.parametrize("name", VIDEOS)
def test_the_peak_of_a_video_lies_on_the_paint(name: str) -> None:
    size = (240, 420)
    scene = Scene.of(name, [size] * 3)
    spot = region(SPOT, size)
    frames = [grey(size), grey(size), painted(size, [spot])]
    check_peak(scene, scene.change(frames), spot, 2, frames)


@pytest.mark.parametrize("name", [*VIDEOS, "llava"])
@pytest.mark.parametrize("frames", [1, 3])
def test_the_grids_of_a_video_say_so(name: str, frames: int) -> None:
    grids = grids_of(Scene.of(name, [(240, 420)] * frames).layout)
    assert {grid.video for grid in grids} == {name in VIDEOS}


# What cannot be known


CROPPED = ("llava", "bakllava", "vipllava")


@pytest.mark.parametrize("name", [*IMAGES, "onevision_nested"])
def test_without_sizes_there_are_whole_images_or_a_warning(name: str) -> None:
    """From tensors alone; what needs the size of the original is not guessed, and a part is not taken for the whole."""
    made = family(name)
    inputs = made.process([grey((640, 320))])
    found = layout(made.config, made.processor, inputs, None)
    assert found.positions.tolist() == placeholders(made.config, inputs["input_ids"])
    if made.blind:
        assert found.grids == ()
        assert found.warning
    else:
        known = grids_of(layout(made.config, made.processor, inputs, [(640, 320)]))
        assert found.grids == tuple(replace(grid, box=None) for grid in known)
        assert bool(found.warning) == (name in CROPPED)


@pytest.mark.parametrize("extra", [-1, 1])
@pytest.mark.parametrize("name", [*IMAGES, *VIDEOS, "onevision_nested"])
def test_another_number_of_tokens_gives_no_grid(name: str, extra: int) -> None:
    """Never a wrong grid: one token too few or too many, and the geometry is unknown."""
    made = family(name)
    sizes = [(640, 320)] * (3 if name in VIDEOS else 1)
    inputs = dict(made.process([grey(size) for size in sizes]))
    ids = inputs["input_ids"]
    last = placeholders(made.config, ids)[-1]
    parts = [ids[:, :last], ids[:, last : last + 1].expand(1, 1 + extra), ids[:, last + 1 :]]
    inputs["input_ids"] = torch.cat(parts, 1)
    found = layout(made.config, made.processor, inputs, sizes)
    assert len(found.positions) == len(placeholders(made.config, ids)) + extra
    assert found.grids == ()
    assert found.warning


@pytest.mark.parametrize("name", [*IMAGES, *VIDEOS])
def test_another_number_of_sizes_gives_no_grid(name: str) -> None:
    """Three too many; fewer may be another reading of the same tensors (four frames, or an image for each tile)."""
    made = family(name)
    sizes = [(640, 320)] * (3 if name in VIDEOS else 1)
    inputs = made.process([grey(size) for size in sizes])
    found = layout(made.config, made.processor, inputs, [*sizes, *[(640, 320)] * 3])
    assert found.grids == ()
    assert found.warning


# The prompts that processors.py writes by hand


@pytest.mark.skipif(not is_torchvision_available(), reason="these combined processors need torchvision")
@pytest.mark.parametrize("name", [*COMBINED, *COMBINED_VIDEO])
def test_the_bench_writes_what_the_real_processor_does(name: str) -> None:
    made = family(name)
    sizes = [(420, 240)] * 5 if name in VIDEOS else [(640, 320), (300, 500)]
    images = [painted(size, [region(SPOT, size)]) for size in sizes]
    ours = made.process(images)
    theirs = (COMBINED | COMBINED_VIDEO)[name](made.processor.image_processor)(images)
    assert runs(made.config, ours["input_ids"]) == runs(made.config, theirs["input_ids"])
    for key in set(ours) - {"input_ids", "attention_mask"}:
        assert torch.equal(ours[key], theirs[key])


def runs(config: Any, input_ids: Tensor) -> list[int]:
    """The lengths of the runs of placeholders: some processors write more than we do between them."""
    positions = torch.tensor(placeholders(config, input_ids))
    ends = [-1, *(positions.diff() > 1).nonzero()[:, 0].tolist(), len(positions) - 1]
    return np.diff(ends).tolist()
