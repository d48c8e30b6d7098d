"""Families whose inputs name each image's grid of patches: Qwen-VL and its kin, Pixtral."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dexar_fast.vision.blocks import Block, Blocks, Family, Prompt, UnknownLayout
from dexar_fast.vision.grid import Box, Grid, Size

MERGES = ("spatial_merge_size", "merge_kernel_size", "merge_size")
WAYS = 256  # of sharing out frames that are tried
PADDERS = ("kimi_k25", "glm5_next")  # pad an image on the right and below: the grid is not all of it


def patch_grids(prompt: Prompt) -> Blocks:
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL: (t, h, w) patches, merged in squares; a step of a video is several frames."""
    merge = prompt.vision("spatial_merge_size")
    images = prompt.numbers("image_grid_thw", 3) if not all(prompt.video) else []
    return [_image(prompt, n, grid, merge) for n, grid in enumerate(images)], _videos(prompt, len(images), merge)


def _videos(prompt: Prompt, first: int, merge: int) -> list[Block]:
    """The steps of each video; `first` is the number of its first frame."""
    videos = prompt.numbers(VIDEO_GRIDS, 3) if any(prompt.video) else []
    blocks = []
    for (_, h, w), count in zip(videos, _frames_per_step(prompt, first, videos), strict=True):
        blocks.append(_steps(h // merge, w // merge, count))
        _check_aspect(prompt, range(first, first + sum(count)), h // merge, w // merge)
        first += sum(count)
    return blocks


def named_grids(prompt: Prompt) -> Blocks:
    """A family that is not in the table: images whose grids the inputs name, patches merged as the config says."""
    if prompt.config.model_type in PADDERS:
        raise UnknownLayout("its processor pads images")
    names = [(name, columns) for name, columns in NAMED if name in prompt.inputs]
    if all(prompt.video) and VIDEO_GRIDS in prompt.inputs:
        return [], _videos(prompt, 0, _merge(prompt, 0))
    if not names:
        raise UnknownLayout(
            f"where the model family {prompt.config.model_type!r} puts its visual tokens is not known, and its inputs "
            "name no grid"
        )
    name, columns = names[0]
    images = prompt.numbers(name, columns)
    videos = _videos(prompt, len(images), _merge(prompt, 0))
    return [_image(prompt, n, grid, _merge(prompt, n)) for n, grid in enumerate(images)], videos


NAMED = (("image_grid_thw", 3), ("image_grid_hw", 2))
VIDEO_GRIDS = "video_grid_thw"


def _merge(prompt: Prompt, image: int) -> int:
    """Patches along a side of one visual token."""
    if "image_merge_sizes" in prompt.inputs:
        return int(prompt.output("image_merge_sizes").flatten()[image])
    for name in MERGES:
        if getattr(getattr(prompt.config, "vision_config", None), name, None) is not None:
            return prompt.vision(name)
    raise UnknownLayout("its config does not say how many patches are one visual token")


def _image(prompt: Prompt, image: int, grid: Sequence[int], merge: int) -> Block:
    *steps, h, w = grid
    if steps not in ([], [1]) or h % merge or w % merge:
        raise UnknownLayout(f"a grid of {list(grid)} patches is no image of whole cells of {merge} x {merge}")
    _check_aspect(prompt, [image], h // merge, w // merge)
    return Block([Grid(0, 0, h // merge, w // merge)], h * w // merge**2)


def _check_aspect(prompt: Prompt, images: Sequence[int], rows: int, columns: int) -> None:
    """Raises UnknownLayout unless rows x columns, one more or less a side, fit the shape of each image."""
    for image in images if prompt.sizes is not None else []:
        if image >= len(prompt.sizes or ()):
            return
        width, height = (prompt.sizes or ())[image]
        least = max((columns - 1) / width, (rows - 1) / height)
        if least > min((columns + 1) / width, (rows + 1) / height):
            raise UnknownLayout(
                f"its inputs name a grid of {rows} rows of {columns}, which an image of {width} x {height} pixels "
                "does not make"
            )


def _frames_per_step(prompt: Prompt, images: int, videos: list[Any]) -> list[list[int]]:
    """How many frames each step of each video stands for: all the same, but the last may repeat a frame to fill up."""
    if not videos:
        return []
    clips = () if prompt.shown is None else prompt.shown.clips
    if len(clips) == len(videos):
        return [_of_clip(clip, steps) for clip, (steps, _, _) in zip(clips, videos, strict=True)]
    per_step = prompt.vision("temporal_patch_size")
    frames = [[per_step] * t for t, _, _ in videos]
    missing = 0 if prompt.sizes is None else sum(map(sum, frames)) - (len(prompt.sizes) - images)
    if missing > 0:
        for video, count in _filled(prompt, videos, per_step, missing).items():
            frames[video][-1] -= count
    return frames


def _of_clip(frames: int, steps: int) -> list[int]:
    """How many of so many frames each step stands for."""
    each = math.ceil(frames / steps)
    last = frames - each * (steps - 1)
    if last < 1:
        raise UnknownLayout(f"{frames} frames do not make {steps} steps")
    return [each] * (steps - 1) + [last]


def _filled(prompt: Prompt, videos: list[Any], per_step: int, missing: int) -> dict[int, int]:
    """By video, how often its last step repeats the last frame to fill up, `missing` times in all; else none."""
    ends = np.cumsum([t * h * w for t, h, w in videos]).tolist()
    ways = [[0, *_repeats(prompt, end, h * w, per_step)] for end, (_, h, w) in zip(ends, videos, strict=True)]
    fitting = [counts for counts in itertools.islice(itertools.product(*ways), WAYS) if sum(counts) == missing]
    return dict(enumerate(fitting[0])) if len(fitting) == 1 else {}


def _repeats(prompt: Prompt, end: int, patches: int, per_step: int) -> list[int]:
    """How often the last step of a video, `patches` before `end`, may repeat its last frame."""
    pixels = prompt.output("pixel_values_videos")
    area = prompt.vision("patch_size") ** 2
    if pixels.ndim != 2 or pixels.shape[1] % (per_step * area):
        raise UnknownLayout("pixel_values_videos is not [patches, channels * frames * pixels]")
    slots = pixels[end - patches : end].unflatten(1, (-1, per_step, area))
    alike = [torch.equal(slots[:, :, n], slots[:, :, n + 1]) for n in range(per_step - 1)][::-1]
    return list(range(1, 1 + (alike.index(False) if False in alike else len(alike))))


def _steps(rows: int, columns: int, frames: list[int]) -> Block:
    firsts = np.cumsum([0, *frames]).tolist()
    grids = [
        Grid(firsts[n], n * rows * columns, rows, columns, frames=count, video=True) for n, count in enumerate(frames)
    ]
    return Block(grids, rows * columns * len(frames))


def pixtral(prompt: Prompt) -> Blocks:
    """Mistral 3, Pixtral: the image at a multiple of the (merged) patch; break tokens have ids of their own."""
    cell = prompt.vision("patch_size") * getattr(prompt.config, "spatial_merge_size", 1)
    blocks = []
    for n, (h, w) in enumerate(prompt.numbers("image_sizes", 2)):
        rows, columns = h // cell, w // cell
        _check_aspect(prompt, [n], rows, columns)
        size = prompt.sizes[n] if prompt.sizes is not None and n < len(prompt.sizes) else None
        box = None if size is None else _whole_cells(size, columns * cell / w, rows * cell / h)
        blocks.append(Block([Grid(0, 0, rows, columns, box)], rows * columns))
    return blocks, []


def coded(tower: str, newline: bool = False) -> Family:
    """Emu3, Apertus 1.5: a code for each square of the resized image, and perhaps a newline that ends each row.

    Args:
        tower: the name of its config, whose levels halve the image.
    """

    def family(prompt: Prompt) -> Blocks:
        levels = getattr(getattr(prompt.config, tower, None), "channel_multiplier", None)
        if not levels:
            raise UnknownLayout("the config of its vision tower names no channel_multiplier")
        cell = 2 ** (len(levels) - 1)
        blocks = []
        for n, (h, w) in enumerate(prompt.numbers("image_sizes", 2)):
            _check_aspect(prompt, [n], h // cell, w // cell)
            stride = w // cell + newline
            blocks.append(Block([Grid(0, 0, h // cell, w // cell, row_stride=stride)], h // cell * stride))
        return blocks, []

    return family


def _whole_cells(size: Size, across: float, down: float) -> Box | None:
    """The part of an image that whole cells cover, from its shares; None is all of it."""
    return None if across == down == 1 else (0, 0, size[0] * across, size[1] * down)
