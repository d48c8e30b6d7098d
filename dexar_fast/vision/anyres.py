"""LLaVA-NeXT and LLaVA-OneVision: a base grid, and the image's tiles as one grid whose rows end in newline features."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from dexar_fast.vision.blocks import Block, Blocks, Prompt, UnknownLayout, part, whole
from dexar_fast.vision.grid import Box, Grid, Size
from dexar_fast.vision.squares import PARTIAL


def llava_next(prompt: Prompt) -> Blocks:
    """Images only: where the frames of videos lie is not known."""
    if any(prompt.video):
        raise UnknownLayout("where the frames of its videos lie is not known")
    return [_anyres(prompt, size) for size in _originals(prompt)], []


def llava_onevision(prompt: Prompt) -> Blocks:
    images = _onevision_images(prompt) if not all(prompt.video) else []
    videos = _onevision_videos(prompt) if any(prompt.video) else []
    return images, videos


def _onevision_images(prompt: Prompt) -> list[Block]:
    """Where the processor was told that images share a prompt, each is one padded square."""
    sizes = _originals(prompt)
    together = prompt.inputs.get("batch_num_images")
    if isinstance(together, Tensor) and together.tolist() != [1] * len(sizes):
        return [_padded_square(prompt, size) for size in sizes]
    aspect = str(getattr(prompt.config, "vision_aspect_ratio", "")).removeprefix("anyres_max_")
    return [_anyres(prompt, size, int(aspect) if aspect.isdigit() else None) for size in sizes]


def _padded_square(prompt: Prompt, size: Size) -> Block:
    """A square of visual tokens, and a newline feature at its end."""
    side, longest = _side(prompt), max(size)
    left, top = -((longest - size[0]) // 2), -((longest - size[1]) // 2)
    box = (left, top, left + longest, top + longest)
    if prompt.sizes is None and size[0] != size[1]:
        prompt.notes.append(PARTIAL)
    covered = prompt.covered(prompt.vision("image_size"))
    return Block([Grid(0, 0, side, side, prompt.known(part(box, covered)))], side * side + 1)


def _onevision_videos(prompt: Prompt) -> list[Block]:
    """Frames pooled two by two, and a newline feature after the last."""
    videos, frames = prompt.shape("pixel_values_videos")[:2]
    side = math.ceil(_side(prompt) / 2)
    covered = prompt.covered(prompt.vision("image_size"))
    boxes = _frame_boxes(prompt, videos * frames, covered)
    return [
        Block(
            [Grid(f, f * side * side, side, side, boxes[v * frames + f], video=True) for f in range(frames)],
            frames * side * side + 1,
        )
        for v in range(videos)
    ]


def _frame_boxes(prompt: Prompt, frames: int, covered: float) -> list[Box | None]:
    """The part of each frame that whole patches cover."""
    if prompt.sizes is None or len(prompt.sizes) < frames:
        return [None] * frames
    return [part(whole(size), covered) for size in prompt.sizes[-frames:]]


def _anyres(prompt: Prompt, size: Size, most_squares: int | None = None) -> Block:
    """LLaVA-NeXT and LLaVA-OneVision: the stretched image, then its tiles as one grid with a newline feature per row.

    The tiles hold the image, scaled to fit and padded; features of the padding are cut off again. Where a tile is no
    whole number of patches (OneVision), the last pixels of each tile are not seen. The tiles still count as one even
    grid, which is less than half a cell off. OneVision shrinks a grid of more than `most_squares` tiles.
    """
    from transformers.image_processing_utils import select_best_resolution

    side, pixels = _side(prompt), prompt.vision("image_size")
    covered = prompt.covered(pixels)
    height, width = select_best_resolution((size[1], size[0]), prompt.config.image_grid_pinpoints)
    scale = min(width / size[0], height / size[1])
    x = _Axis.of(size[0], width, pixels, side, covered, scale)
    y = _Axis.of(size[1], height, pixels, side, covered, scale)
    rows, columns = _shrunk(y.cells, x.cells, side, most_squares)
    base = Grid(0, 0, side, side, prompt.known(part(whole(size), covered)))
    box = (x.low, y.low, x.high, y.high)
    tiles = Grid(0, side * side, rows, columns, prompt.known(box), row_stride=columns + 1)
    # A thin strip may leave nothing of its tiles but newline features.
    grids = [base, tiles] if rows and columns else [base]
    return Block(grids, side * side + rows * (columns + 1))


@dataclass(frozen=True)
class _Axis:
    """One axis of a padded image cut into tiles: the cells that are kept, and what they cover of the original."""

    cells: int
    low: float
    high: float

    @classmethod
    def of(cls, original: int, canvas: int, tile: int, side: int, covered: float, scale: float) -> _Axis:
        """`original` pixels scaled into the middle of `canvas` pixels, which are tiles of `side` cells each."""
        tiles = canvas // tile
        cells = tiles * side
        kept = min(cells, int(round(original * scale * cells / canvas, 7)))
        cut = (cells - kept) // 2
        content = min(canvas, math.ceil(original * scale))
        cell = (canvas - tile + tile * covered) / cells
        low, high = (edge * cell - (canvas - content) // 2 for edge in (cut, cells - cut))
        return cls(cells - 2 * cut, low * original / content, high * original / content)


def _shrunk(rows: int, columns: int, side: int, most_squares: int | None) -> tuple[int, int]:
    """As pack_image_features of transformers' LLaVA-OneVision does."""
    ratio = math.sqrt(rows * columns / (most_squares * side**2)) if most_squares else 0
    return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)


def _originals(prompt: Prompt) -> list[Size]:
    """(width, height) of each image, as the inputs state them."""
    sizes = [(width, height) for height, width in prompt.numbers("image_sizes", 2)]
    prompt.check_sizes(sizes)
    return sizes


def _side(prompt: Prompt) -> int:
    """Patches along a side of the square that the vision tower sees."""
    return prompt.vision("image_size") // prompt.vision("patch_size")
