"""Which of the pictures given are images, and which are frames of which video."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from dexar_fast.prompt.remade.making import IMAGES, VIDEO

WAYS = 256  # of sharing frames out that are tried
MANY = 16  # pictures: of more it is not tried which are images
NAMES = ("image_grid_thw", "image_sizes", "image_grids", "pixel_values_images")  # what has a row for each image
GRIDS = ("video_grid_thw", "video_grids")  # of each video, its steps first
Clips = tuple[int, ...]  # the frames of each video


def images_of(pictures: int, inputs: Mapping[str, Any]) -> Iterable[int]:
    """How many of so many pictures, the first, can be images, where frames have a name of their own in the inputs."""
    if IMAGES not in inputs and "pixel_values_images" not in inputs:
        return [0]
    named = [len(inputs[name]) for name in NAMES if isinstance(inputs.get(name), Tensor)]
    return [min(pictures, named[0])] if named else range(1, min(pictures, MANY))


def clips(frames: int, inputs: Mapping[str, Any]) -> Iterator[Clips]:
    """Each way in which so many frames can be those of the videos that the inputs hold, one behind the other."""
    for counts in itertools.islice(itertools.product(*_ranges(frames, inputs)), WAYS):
        if sum(counts) == frames:
            yield counts


def parted(frames: Sequence[Any], clips: Clips) -> list[list[Any]]:
    """The frames of each video."""
    return [[*frames[start:end]] for start, end in itertools.pairwise(itertools.accumulate(clips, initial=0))]


def unpadded(inputs: Mapping[str, Any]) -> Clips | None:
    """The frames of each video where they stand as images in rows that zeros fill up (SmolVLM); None: they do not."""
    pixels = inputs.get(IMAGES)
    if not isinstance(pixels, Tensor) or pixels.ndim != 5:
        return None
    return tuple(pixels.flatten(2).any(-1).sum(1).tolist())


def _ranges(frames: int, inputs: Mapping[str, Any]) -> list[Iterable[int]]:
    """How many of the frames each video of the inputs can have."""
    pixels, told = inputs.get(VIDEO), inputs.get("num_frames_per_video")
    grids = next((inputs[name] for name in GRIDS if isinstance(inputs.get(name), Tensor)), None)
    if isinstance(told, Tensor):
        return [[count] for count in told.tolist()]
    if grids is not None and len(grids) > 1:
        steps = grids[:, 0].tolist()
        most = math.ceil(frames / sum(steps))  # frames in a step, of which the last of a video may lack some
        return [range((each - 1) * most + 1, each * most + 1) for each in steps]
    count = len(pixels) if isinstance(pixels, Tensor) and pixels.ndim == 5 else 1
    return [[frames // count]] * count
