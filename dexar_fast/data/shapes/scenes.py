"""A layout painted on a textured background, with a mask for each object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dexar_fast.data.shapes.layouts import SIZE, Layout, Placed, layout
from dexar_fast.data.shapes.outlines import COLORS, SHAPES, Points

SUPERSAMPLING = 4


@dataclass(frozen=True)
class Scene:
    """A painted layout. `objects` run left to right; `masks` is bool [objects, size, size]: what is seen of each.

    `hidden` is the share of each object's pixels that another hides, in [0, 1].
    """

    image: Image.Image
    objects: Layout
    masks: NDArray[np.bool_]
    hidden: tuple[float, ...]


def draw_scene(seed: int, size: int = SIZE) -> Scene:
    """Paint `layout(seed)` on a textured background, `size` pixels square. Same seed and size, same pixels."""
    return paint(layout(seed), seed, size)


def paint(objects: Layout, seed: int, size: int = SIZE) -> Scene:
    """Paint a layout, `size` pixels square; `seed` decides on background, light and grain."""
    rng = np.random.default_rng([seed, 1])
    canvas = _background(rng, size)
    whole = np.zeros((len(objects), size, size), dtype=np.bool_)
    for index in sorted(range(len(objects)), key=lambda index: objects[index].layer):
        _paint(canvas, whole[index], objects[index], rng)
    pixels = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    seen = _seen(whole, np.array([item.layer for item in objects]))
    hidden = 1 - seen.sum(axis=(1, 2)) / whole.sum(axis=(1, 2))
    return Scene(Image.fromarray(pixels), objects, seen, tuple(hidden.tolist()))


def _seen(whole: NDArray[np.bool_], layers: NDArray[np.intp]) -> NDArray[np.bool_]:
    """The masks without what lies under a higher layer."""
    return np.stack([mask & ~whole[layers > layer].any(axis=0) for mask, layer in zip(whole, layers, strict=True)])


def _background(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    base = rng.uniform(60, 165) + rng.normal(0, 9, size=3)
    grain = _noise(rng, size // 8, size, 9) + 5 * rng.standard_normal((size, size), dtype=np.float32)
    return np.stack([_noise(rng, 5, size, 12) + (grain + np.float32(tint)) for tint in base], axis=-1)


def _noise(rng: np.random.Generator, cells: int, size: int, amplitude: float) -> NDArray[np.float32]:
    field = Image.fromarray(rng.normal(0, amplitude, size=(cells, cells)).astype(np.float32))
    return np.asarray(field.resize((size, size), Image.Resampling.BICUBIC))


def _paint(canvas: NDArray[np.float32], mask: NDArray[np.bool_], item: Placed, rng: np.random.Generator) -> None:
    size = canvas.shape[0]
    left, top, coverage = _coverage(item, size)
    window = (slice(top, top + coverage.shape[0]), slice(left, left + coverage.shape[1]))
    color = np.asarray(COLORS[item.color]) + rng.normal(0, 8, size=3)
    light = 1 + rng.uniform(-0.12, 0.12) * np.linspace(-1, 1, coverage.shape[0])[:, None]
    grain = 4 * rng.standard_normal((*coverage.shape, 1), dtype=np.float32)
    paint = (light[..., None] * color).astype(np.float32) + grain
    canvas[window] += coverage[..., None] * (paint - canvas[window])
    mask[window] = coverage > 0.5


def _coverage(item: Placed, size: int) -> tuple[int, int, NDArray[np.float32]]:
    """Left, top and anti-aliased coverage in [0, 1] of the object's window, clipped to the image."""
    reach = 1.3 * item.radius * size
    left, top = max(0, int(item.x * size - reach)), max(0, int(item.y * size - reach))
    right, bottom = min(size, int(item.x * size + reach)), min(size, int(item.y * size + reach))
    stencil = Image.new("L", ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING))
    outline = [((x - left) * SUPERSAMPLING, (y - top) * SUPERSAMPLING) for x, y in _outline(item, size)]
    ImageDraw.Draw(stencil).polygon(outline, fill=255)
    return left, top, np.asarray(stencil.reduce(SUPERSAMPLING), dtype=np.float32) / np.float32(255)


def _outline(item: Placed, size: int) -> Points:
    cos, sin = float(np.cos(np.deg2rad(item.tilt))), float(np.sin(np.deg2rad(item.tilt)))
    return [
        (
            size * (item.x + item.radius * (cos * x - sin * y)),
            size * (item.y + item.radius * (sin * x + cos * y)),
        )
        for x, y in SHAPES[item.shape]
    ]
