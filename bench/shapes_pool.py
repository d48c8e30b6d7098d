"""A pool of Shapes scenes for training: the pixels the processor would make of them, and a label per
patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.data.shapes import COLORS, SHAPES, Placed, draw_scene

PIXELS, PATCHES = 96, 12
MAX_OBJECTS = 3
BACKGROUND, IGNORE = 0, -100
OBJECT_COVERAGE, BACKGROUND_COVERAGE = 0.2, 0.05
PLACES = [(count, index) for count in range(1, MAX_OBJECTS + 1) for index in range(count)]
LABEL_CLASSES = {"color": len(COLORS) + 1, "shape": len(SHAPES) + 1, "place": len(PLACES) + 1}


@dataclass(frozen=True)
class Pool:
    """`pixels` uint8 [n, 96, 96, 3]; each of `labels` int64 [n, 144], 0 background and -100 neither;
    `layouts` n."""

    pixels: NDArray[np.uint8]
    labels: dict[str, NDArray[np.int64]]
    layouts: list[tuple[Placed, ...]]


def build_pool(seeds: Sequence[int], processes: int) -> Pool:
    with get_context("fork").Pool(processes) as workers:
        rendered = workers.map(_render, seeds, chunksize=64)
    pixels = np.stack([image for image, _, _ in rendered])
    owners = np.stack([owner for _, owner, _ in rendered])
    layouts = [objects for _, _, objects in rendered]
    labels = {
        name: np.stack([_label(name, owner, objects) for owner, objects in zip(owners, layouts, strict=True)])
        for name in LABEL_CLASSES
    }
    return Pool(pixels, labels, layouts)


def _render(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[Placed, ...]]:
    scene = draw_scene(seed)
    small = scene.image.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)
    return np.asarray(small), patch_owner(scene.masks), scene.objects


def patch_owner(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Per patch 1 + the index of the object on it, 0 for background, -100 for a sliver. [n, s, s] ->
    [144]."""
    count, side = masks.shape[0], masks.shape[1] // PATCHES
    cells = masks.reshape(count, PATCHES, side, PATCHES, side).mean(axis=(2, 4)).reshape(count, -1)
    owner = np.where(cells.max(axis=0) >= OBJECT_COVERAGE, cells.argmax(axis=0) + 1, IGNORE)
    return np.asarray(np.where(cells.max(axis=0) <= BACKGROUND_COVERAGE, BACKGROUND, owner), dtype=np.int64)


def _label(name: str, owner: NDArray[np.int64], objects: tuple[Placed, ...]) -> NDArray[np.int64]:
    classes = np.array([BACKGROUND] + [_object_class(name, objects, i) for i in range(len(objects))])
    return np.asarray(np.where(owner == IGNORE, IGNORE, classes[np.maximum(owner, 0)]), dtype=np.int64)


def _object_class(name: str, objects: tuple[Placed, ...], index: int) -> int:
    item = objects[index]
    if name == "color":
        return 1 + list(COLORS).index(item.color)
    if name == "shape":
        return 1 + list(SHAPES).index(item.shape)
    return 1 + PLACES.index((len(objects), index))
