"""Families whose vision tower sees an image as squares: one each, or tiles and a thumbnail."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dexar_fast.vision.blocks import NO_PROCESSOR, Block, Blocks, Family, Prompt, UnknownLayout, part, square, whole
from dexar_fast.vision.grid import Box, Grid, Size

PARTIAL = (
    "the model may have seen its image cropped or padded to a square, which images= would tell: draw the maps over "
    "that square, not over the original"
)


def one_square(box: Callable[[Size, Any, int], Box]) -> Family:
    """A family that sees a square of each image; `box` says which part of the image that shows."""

    def family(prompt: Prompt) -> Blocks:
        pixels = _pixels(prompt)
        if prompt.sizes is None:
            if _is_partial(prompt.image_processor):
                prompt.notes.append(PARTIAL)
            return _square_blocks(prompt, [[None]] * _squares(prompt)), []
        return _square_blocks(prompt, [[box(size, prompt.image_processor, pixels)] for size in prompt.sizes]), []

    return family


def tiled(boxes: Callable[[Size, Any], list[Box]]) -> Family:
    """A family that sees an image through several squares, and a frame through one; `boxes` gives what each shows."""

    def family(prompt: Prompt) -> Blocks:
        squares = _squares(prompt)
        if prompt.sizes is None:
            if squares > 1:
                raise UnknownLayout("its squares may be tiles of one image: pass images= along with the inputs")
            return _square_blocks(prompt, [[None]]), []
        images = len(prompt.sizes) if prompt.shown is None else prompt.shown.images
        shown = [[whole(size)] for size in prompt.sizes]
        if squares != len(prompt.sizes):
            shown[:images] = [boxes(size, prompt.image_processor) for size in prompt.sizes[:images]]
        blocks = _square_blocks(prompt, shown)
        return blocks[:images], [_of_video(frame) for frame in blocks[images:]]

    return family


def _of_video(frame: Block) -> Block:
    return replace(frame, grids=[replace(grid, video=True) for grid in frame.grids])


def _squares(prompt: Prompt) -> int:
    """How many there are; rows of several may be filled up with zeros, which make no visual tokens."""
    shape = prompt.shape("pixel_values")
    count = math.prod(shape[:-3])
    return count if len(shape) < 5 else int(prompt.output("pixel_values").flatten(2).any(-1).sum()) or count


def _pixels(prompt: Prompt) -> int:
    """The side of the squares."""
    height, width = prompt.shape("pixel_values")[-2:]
    if height != width:
        raise UnknownLayout(f"its pixel_values are no squares but {width} x {height}")
    return height


def _square_blocks(prompt: Prompt, boxes: Sequence[Sequence[Box | None]]) -> list[Block]:
    """A block for each image from the boxes of its squares."""
    pixels = _pixels(prompt)
    length = len(prompt.video) // _squares(prompt)
    side = square(length)
    covered = _covered(prompt, pixels, side)
    return [
        Block([Grid(0, n * length, side, side, part(box, covered)) for n, box in enumerate(image)], length * len(image))
        for image in boxes
    ]


def _covered(prompt: Prompt, pixels: int, side: int) -> float:
    """The share of a side that cells of whole patches cover, or that a convolutional tower without patches sees."""
    tower = getattr(prompt.config, "vision_config", None)
    patches = pixels if getattr(tower, "patch_size", None) is None else pixels // prompt.vision("patch_size")
    if side == 0 or patches % side:
        raise UnknownLayout(f"{side} x {side} visual tokens do not divide its images of {pixels} x {pixels} pixels")
    return 1.0 if patches == pixels else prompt.covered(pixels)


def shown(size: Size, image_processor: Any, pixels: int) -> Box:
    """LLaVA-1.5, BakLLaVA, VipLLaVA, DeepSeek-VL, Janus: the part of an image that a square of `pixels` shows.

    Processors resize an image, and crop its centre or pad it to a centred square. The box is in pixels of the
    original image; it reaches beyond the image where the processor pads.

    Raises:
        UnknownLayout: settings that do not make such a square.
    """
    if image_processor is None:
        raise UnknownLayout(NO_PROCESSOR)
    if getattr(image_processor, "crop_pct", None) is not None:
        raise UnknownLayout("how its image processor crops an image is not known")
    seen = _padded(size) if _pads(image_processor) else size
    resized = _resized(seen, image_processor)
    if min(size) * min(resized[0] / seen[0], resized[1] / seen[1]) < (getattr(image_processor, "min_size", 0) or 0):
        raise UnknownLayout("its processor widens so thin an image")
    width, height = crop = _crop(image_processor) or resized
    if any(abs(edge - pixels) > 1 for edge in crop):
        raise UnknownLayout(
            f"the settings of its image processor make {round(width)} x {round(height)} pixels of a "
            f"{size[0]} x {size[1]} image, and the inputs hold {pixels} x {pixels}"
        )
    width, height = width * seen[0] / resized[0], height * seen[1] / resized[1]
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


def _is_partial(image_processor: Any) -> bool:
    return image_processor is None or _pads(image_processor) or _crop(image_processor) is not None


def _pads(image_processor: Any) -> bool:
    """Whether it pads to a centred square."""
    if not getattr(image_processor, "do_pad", False):
        return False
    if not hasattr(image_processor, "pad_to_square"):
        raise UnknownLayout("how its image processor pads an image is not known")
    return True


def _padded(size: Size) -> Size:
    return max(size), max(size)


def _crop(image_processor: Any) -> tuple[float, float] | None:
    if not getattr(image_processor, "do_center_crop", False):
        return None
    crop = _lengths(image_processor, "crop_size")
    return crop.get("width", 0), crop.get("height", 0)


def _resized(size: Size, image_processor: Any) -> tuple[float, float]:
    if not getattr(image_processor, "do_resize", True):
        return size
    target = _lengths(image_processor, "size")
    if target.keys() == {"height", "width"}:
        return target["width"], target["height"]
    if target.keys() == {"shortest_edge"}:
        scale = target["shortest_edge"] / min(size)
        return size[0] * scale, size[1] * scale
    raise UnknownLayout(f"how its image processor resizes is not known: size is {target}")


def _lengths(image_processor: Any, name: str) -> dict[str, int]:
    """A size among the settings, which is a mapping of one kind or another."""
    value = getattr(image_processor, name, None)
    found = {key: value.get(key) for key in ("height", "width", "shortest_edge", "longest_edge")} if value else {}
    return {key: length for key, length in found.items() if length}


def stretched(size: Size, image_processor: Any, pixels: int) -> Box:
    """PaliGemma, FastVLM: the whole image, stretched to a square, unless the settings say otherwise."""
    return whole(size) if image_processor is None else shown(size, image_processor, pixels)


def pan_and_scan(size: Size, image_processor: Any) -> list[Box]:
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


def tiles_and_thumbnail(size: Size, image_processor: Any) -> list[Box]:
    """InternVL, Aya Vision: of all arrangements of so many tiles, the one closest to the image's aspect."""
    width, height = size
    squares = _patches(image_processor, size, "crop_to_patches")
    if squares == 1:
        return [whole(size)]
    tiles = squares - 1
    shapes = [(tiles // columns, columns) for columns in range(1, tiles + 1) if tiles % columns == 0]
    rows, columns = min(shapes, key=lambda shape: abs(width / height - shape[1] / shape[0]))
    return [*_tiles(size, rows, columns), whole(size)]


def rows_of_tiles_and_thumbnail(size: Size, image_processor: Any) -> list[Box]:
    """Idefics3, SmolVLM: rows of tiles, then the whole image."""
    _, rows, columns = _patches(image_processor, size, "do_image_splitting")
    return [*_tiles(size, rows, columns), whole(size)]


def _patches(image_processor: Any, size: Size, tiling: str) -> Any:
    """transformers' own count of the tiles of an image; `tiling` is the setting that switches them on."""
    if image_processor is None:
        raise UnknownLayout(NO_PROCESSOR)
    try:
        return image_processor.get_number_of_image_patches(size[1], size[0], {tiling: True})
    except AttributeError:
        raise UnknownLayout("its image processor does not say how it cuts an image into tiles") from None


def _tiles(size: Size, rows: int, columns: int) -> list[Box]:
    x, y = size[0] / max(1, columns), size[1] / max(1, rows)
    return [(c * x, r * y, (c + 1) * x, (r + 1) * y) for r in range(rows) for c in range(columns)]
