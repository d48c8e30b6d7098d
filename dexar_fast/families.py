"""How each model family lays visual tokens over its images: one small function a family (method.md section 6).

A family returns its images and its videos as blocks of visual tokens. What depends on how the processor was set up is
read from the processor's output where that tells, and checked against the number of visual tokens afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dexar_fast.grid import Box, Grid, Size

NO_PROCESSOR = "how its processor cuts an image is not known: make the Explainer with the processor"


class UnknownLayout(Exception):
    """The layout cannot be told from what is at hand; the message says why."""


@dataclass(frozen=True)
class Prompt:
    """What a family reads its layout from."""

    config: Any
    image_processor: Any
    inputs: Mapping[str, Any]
    sizes: Sequence[Size] | None  # of the original images, then of the frames of videos
    video: list[bool]  # of each visual token, whether it belongs to a video

    def numbers(self, name: str, columns: int) -> list[list[int]]:
        """One of the processor's outputs: positive numbers [images, columns]."""
        found = self._output(name)
        if found.ndim != 2 or found.shape[1] != columns or found.is_floating_point() or not bool((found > 0).all()):
            raise UnknownLayout(f"{name} is not [images, {columns}] of positive integers")
        return found.tolist()

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one of the processor's outputs: images, or frames of videos, [..., channels, height, width]."""
        found = self._output(name)
        if found.ndim < 4 or 0 in found.shape:
            raise UnknownLayout(f"{name} is not [..., channels, height, width]")
        return tuple(found.shape)

    def _output(self, name: str) -> Tensor:
        if not isinstance(self.inputs.get(name), Tensor):
            raise UnknownLayout(f"the inputs hold no tensor {name}")
        return self.inputs[name]


@dataclass(frozen=True)
class Block:
    """An image or a video of `length` visual tokens: grids whose `start` and `image` count from its own first."""

    grids: list[Grid]
    length: int

    @property
    def images(self) -> int:
        """How many images the block stands for."""
        return max(grid.images.stop for grid in self.grids)


Blocks = tuple[list[Block], list[Block]]  # of the images, of the videos
Family = Callable[[Prompt], Blocks]


# Images that the vision tower sees as squares: one each, or tiles and a thumbnail.


def _one_square(box: Callable[[Size, Any], Box]) -> Family:
    """A family that sees a square of each image; `box` says which part of the image that shows."""

    def family(prompt: Prompt) -> Blocks:
        if prompt.sizes is None:
            return _square_blocks(prompt, [[None]] * _squares(prompt)), []
        return _square_blocks(prompt, [[box(size, prompt.image_processor)] for size in prompt.sizes]), []

    return family


def _tiled(boxes: Callable[[Size, Any], list[Box]]) -> Family:
    """A family that sees an image through several squares; `boxes` gives what each shows."""

    def family(prompt: Prompt) -> Blocks:
        squares = _squares(prompt)
        if prompt.sizes is None:
            if squares > 1:
                raise UnknownLayout("its squares may be tiles of one image: pass images= along with the inputs")
            return _square_blocks(prompt, [[None]]), []
        if squares == len(prompt.sizes):
            return _square_blocks(prompt, [[whole(size)] for size in prompt.sizes]), []
        return _square_blocks(prompt, [boxes(size, prompt.image_processor) for size in prompt.sizes]), []

    return family


def _squares(prompt: Prompt) -> int:
    return math.prod(prompt.shape("pixel_values")[:-3])


def _square_blocks(prompt: Prompt, boxes: Sequence[Sequence[Box | None]]) -> list[Block]:
    """A block for each image from the boxes of its squares."""
    length = len(prompt.video) // _squares(prompt)
    side = square(length)
    covered = _covered(prompt.config, prompt.shape("pixel_values")[-1])
    return [
        Block(
            [Grid(0, n * length, side, side, _part(box, covered)) for n, box in enumerate(image)], length * len(image)
        )
        for image in boxes
    ]


def centre_crop(size: Size, image_processor: Any) -> Box:
    """LLaVA-1.5, BakLLaVA, VipLLaVA: what of an image a model sees whose processor may crop the centre.

    A processor that brings the shortest edge to a length and crops the centre cuts the rest off. The box is in pixels
    of the original image; it reaches beyond the image where the crop pads.
    """
    if image_processor is None:
        raise UnknownLayout(NO_PROCESSOR)
    edge = (getattr(image_processor, "size", None) or {}).get("shortest_edge")
    crop = getattr(image_processor, "crop_size", None)
    if not getattr(image_processor, "do_center_crop", False) or not edge or not crop:
        return whole(size)
    scale = edge / min(size) if getattr(image_processor, "do_resize", True) else 1.0
    width, height = crop["width"] / scale, crop["height"] / scale
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


def _stretched(size: Size, image_processor: Any) -> Box:
    """PaliGemma: the whole image, stretched to a square."""
    return whole(size)


def _pan_and_scan(size: Size, image_processor: Any) -> list[Box]:
    """Gemma 3: the image, and with do_pan_and_scan crops along the longer side of one that is far from square.

    The defaults are those of transformers' Gemma3Processor.
    """
    smallest = getattr(image_processor, "pan_and_scan_min_crop_size", None) or 256
    most = getattr(image_processor, "pan_and_scan_max_num_crops", None) or 4
    ratio = getattr(image_processor, "pan_and_scan_min_ratio_to_activate", None) or 1.2
    longer, shorter = max(size), min(size)
    count = min(most, max(2, min(longer // smallest, math.floor(longer / shorter + 0.5))))
    step = math.ceil(longer / count)
    if longer / shorter < ratio or min(step, shorter) < smallest:
        return [whole(size)]
    ends = [(start, min(start + step, longer)) for start in range(0, count * step, step)]
    wide = size[0] >= size[1]
    return [whole(size), *((a, 0, b, shorter) if wide else (0, a, shorter, b) for a, b in ends)]


def _tiles_and_thumbnail(size: Size, image_processor: Any) -> list[Box]:
    """InternVL, Aya Vision: the tiles' arrangement is the one of their number that is closest to the image's aspect."""
    width, height = size
    squares = _patches(image_processor, size, "crop_to_patches")
    if squares == 1:
        return [whole(size)]
    tiles = squares - 1
    shapes = [(tiles // columns, columns) for columns in range(1, tiles + 1) if tiles % columns == 0]
    rows, columns = min(shapes, key=lambda shape: abs(width / height - shape[1] / shape[0]))
    return [*_tiles(size, rows, columns), whole(size)]


def _rows_of_tiles_and_thumbnail(size: Size, image_processor: Any) -> list[Box]:
    """Idefics3, SmolVLM."""
    _, rows, columns = _patches(image_processor, size, "do_image_splitting")
    return [*_tiles(size, rows, columns), whole(size)]


def _patches(image_processor: Any, size: Size, tiling: str) -> Any:
    """transformers' own count of the tiles of an image; `tiling` is the setting that switches them on."""
    if image_processor is None:
        raise UnknownLayout(NO_PROCESSOR)
    try:
        return image_processor.get_number_of_image_patches(size[1], size[0], {tiling: True})
    except AttributeError:
        raise UnknownLayout(f"{type(image_processor).__name__} does not say how it cuts an image into tiles") from None


def _tiles(size: Size, rows: int, columns: int) -> list[Box]:
    x, y = size[0] / max(1, columns), size[1] / max(1, rows)
    return [(c * x, r * y, (c + 1) * x, (r + 1) * y) for r in range(rows) for c in range(columns)]


# Images whose grid follows their own aspect.


def _llava_next(prompt: Prompt) -> Blocks:
    heights_and_widths = prompt.numbers("image_sizes", 2)
    return [_anyres(prompt, (w, h)) for h, w in heights_and_widths], []


def _llava_onevision(prompt: Prompt) -> Blocks:
    images = _onevision_images(prompt) if not all(prompt.video) else []
    videos = _onevision_videos(prompt) if any(prompt.video) else []
    return images, videos


def _onevision_images(prompt: Prompt) -> list[Block]:
    """An image that shares its prompt with others, where the processor was told so, is one square, padded."""
    sizes = [(w, h) for h, w in prompt.numbers("image_sizes", 2)]
    together = prompt.inputs.get("batch_num_images")
    if isinstance(together, Tensor) and together.tolist() != [1] * len(sizes):
        return [_padded_square(prompt, size) for size in sizes]
    aspect = str(getattr(prompt.config, "vision_aspect_ratio", "")).removeprefix("anyres_max_")
    return [_anyres(prompt, size, int(aspect) if aspect.isdigit() else None) for size in sizes]


def _padded_square(prompt: Prompt, size: Size) -> Block:
    """A newline feature ends it."""
    side, longest = _vision_side(prompt.config), max(size)
    left, top = -((longest - size[0]) // 2), -((longest - size[1]) // 2)
    box = (left, top, left + longest, top + longest)
    covered = _covered(prompt.config, _pixels(prompt.config))
    return Block([Grid(0, 0, side, side, _known(prompt, _part(box, covered)))], side * side + 1)


def _onevision_videos(prompt: Prompt) -> list[Block]:
    """Frames pooled two by two, a newline feature behind the last."""
    videos, frames = prompt.shape("pixel_values_videos")[:2]
    side = math.ceil(_vision_side(prompt.config) / 2)
    covered = _covered(prompt.config, _pixels(prompt.config))
    boxes = _frame_boxes(prompt, videos * frames, covered)
    return [
        Block(
            [Grid(f, f * side * side, side, side, boxes[v * frames + f], video=True) for f in range(frames)],
            frames * side * side + 1,
        )
        for v in range(videos)
    ]


def _frame_boxes(prompt: Prompt, frames: int, covered: float) -> list[Box | None]:
    """Of each frame the part that whole patches cover."""
    if prompt.sizes is None or len(prompt.sizes) < frames:
        return [None] * frames
    return [_part(whole(size), covered) for size in prompt.sizes[-frames:]]


def _anyres(prompt: Prompt, size: Size, most_squares: int | None = None) -> Block:
    """LLaVA-NeXT and LLaVA-OneVision: the stretched image, then its tiles as one grid with a newline feature per row.

    The tiles hold the image, scaled to fit and padded; features of the padding are cut off again. Where a tile is no
    whole number of patches (OneVision), the last pixels of each are not seen: the tiles are taken for one even grid,
    less than half a cell off. OneVision shrinks a grid of more than `most_squares` tiles.
    """
    from transformers.image_processing_utils import select_best_resolution

    side, pixels = _vision_side(prompt.config), _pixels(prompt.config)
    covered = _covered(prompt.config, pixels)
    height, width = select_best_resolution((size[1], size[0]), prompt.config.image_grid_pinpoints)
    scale = min(width / size[0], height / size[1])
    x = _Axis.of(size[0], width, pixels, side, covered, scale)
    y = _Axis.of(size[1], height, pixels, side, covered, scale)
    rows, columns = _shrunk(y.cells, x.cells, side, most_squares)
    base = Grid(0, 0, side, side, _known(prompt, _part(whole(size), covered)))
    box = (x.low, y.low, x.high, y.high)
    tiles = Grid(0, side * side, rows, columns, _known(prompt, box), row_stride=columns + 1)
    # Of the tiles of a thin strip nothing but newline features may be left.
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
    """transformers' LLaVA-OneVision, pack_image_features."""
    ratio = math.sqrt(rows * columns / (most_squares * side**2)) if most_squares else 0
    return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)


def _qwen_vl(prompt: Prompt) -> Blocks:
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL: (t, h, w) patches, merged in squares; a frame of a video stands for several."""
    merge = prompt.config.vision_config.spatial_merge_size
    images = prompt.numbers("image_grid_thw", 3) if not all(prompt.video) else []
    videos = prompt.numbers("video_grid_thw", 3) if any(prompt.video) else []
    frames = _frames_per_step(prompt, images, videos)
    return (
        [Block([Grid(0, 0, h // merge, w // merge)], h * w // merge**2) for _, h, w in images],
        [_steps(h // merge, w // merge, frames[n]) for n, (_, h, w) in enumerate(videos)],
    )


def _frames_per_step(prompt: Prompt, images: list[Any], videos: list[Any]) -> list[list[int]]:
    """How many frames each step of each video stands for: all the same, but the last of an odd number is repeated."""
    per_step = prompt.config.vision_config.temporal_patch_size
    frames = [[per_step] * t for t, _, _ in videos]
    if videos and prompt.sizes is not None:
        missing = sum(map(sum, frames)) - (len(prompt.sizes) - len(images))
        if 0 < missing < per_step and len(videos) == 1:
            frames[0][-1] -= missing
    return frames


def _steps(rows: int, columns: int, frames: list[int]) -> Block:
    firsts = np.cumsum([0, *frames]).tolist()
    grids = [
        Grid(firsts[n], n * rows * columns, rows, columns, frames=count, video=True) for n, count in enumerate(frames)
    ]
    return Block(grids, rows * columns * len(frames))


def _pixtral(prompt: Prompt) -> Blocks:
    """Mistral 3, Pixtral: the image at a multiple of the (merged) patch; break tokens have ids of their own."""
    cell = prompt.config.vision_config.patch_size * getattr(prompt.config, "spatial_merge_size", 1)
    shapes = [(h // cell, w // cell) for h, w in prompt.numbers("image_sizes", 2)]
    return [Block([Grid(0, 0, rows, columns)], rows * columns) for rows, columns in shapes], []


def _llava(prompt: Prompt) -> Blocks:
    pixtral = getattr(prompt.config.vision_config, "model_type", None) == "pixtral"
    return _pixtral(prompt) if pixtral else _one_square(centre_crop)(prompt)


FAMILIES: dict[str, Family] = {
    "llava": _llava,
    "vipllava": _one_square(centre_crop),
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen_vl,
    "qwen2_5_vl": _qwen_vl,
    "qwen3_vl": _qwen_vl,
    "qwen3_vl_moe": _qwen_vl,
    "internvl": _tiled(_tiles_and_thumbnail),
    "aya_vision": _tiled(_tiles_and_thumbnail),
    "paligemma": _one_square(_stretched),
    "gemma3": _tiled(_pan_and_scan),
    "idefics3": _tiled(_rows_of_tiles_and_thumbnail),
    "smolvlm": _tiled(_rows_of_tiles_and_thumbnail),
    "mistral3": _pixtral,
}
"""model_type -> its layout."""


# What the families share


def square(tokens: int) -> int:
    """The side of a square of so many tokens."""
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise UnknownLayout(f"{tokens} visual tokens do not make a square")
    return side


def _first(value: Any) -> int:
    return int(value[0]) if isinstance(value, Sequence) else int(value)


def _pixels(config: Any) -> int:
    """The side of what the vision tower sees at once."""
    return _first(config.vision_config.image_size)


def _vision_side(config: Any) -> int:
    return _pixels(config) // _first(config.vision_config.patch_size)


def _covered(config: Any, pixels: int) -> float:
    """The share of a side of so many pixels that whole patches cover: a rest on the right and below is not seen."""
    patch = _first(config.vision_config.patch_size)
    return pixels // patch * patch / pixels


def whole(size: Size) -> Box:
    """All of an image."""
    return 0, 0, *size


def _part(box: Box | None, share: float) -> Box | None:
    """The upper left part of a box; `share` of each side."""
    if box is None:
        return None
    left, top, right, bottom = box
    return left, top, left + share * (right - left), top + share * (bottom - top)


def _known(prompt: Prompt, box: Box | None) -> Box | None:
    """No box in the pixels of an image that is not there."""
    return None if prompt.sizes is None else box
