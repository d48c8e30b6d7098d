"""The Shapes set: seeded scenes of one to three coloured shapes, with masks, questions and labelled answers.

A scene is a pure function of its seed. `layout(seed)` says what is where (cheap), `draw_scene(seed)` paints
it. Answers are sequences of words, each labelled colour, shape or filler, so that attribution to visual
words can be scored against the mask of the object a word speaks of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (40, 165, 60),
    "blue": (40, 80, 215),
    "yellow": (240, 215, 45),
    "purple": (140, 50, 170),
    "cyan": (50, 205, 215),
    "white": (245, 245, 245),
}
SIZE = 384
SUPERSAMPLING = 4

WordKind = Literal["color", "shape", "filler"]
QuestionKind = Literal["describe", "what_color", "which_shape", "is_there"]
QUESTION_KINDS: tuple[QuestionKind, ...] = ("describe", "what_color", "which_shape", "is_there")
Points = list[tuple[float, float]]


def _radial(count: int, radii: Sequence[float], first_angle: float = -90.0) -> Points:
    angles = np.deg2rad(first_angle + 360.0 * np.arange(count) / count)
    return [
        (radii[i % len(radii)] * float(np.cos(a)), radii[i % len(radii)] * float(np.sin(a)))
        for i, a in enumerate(angles)
    ]


def _cross(arm: float) -> Points:
    return [
        (-arm, -1),
        (arm, -1),
        (arm, -arm),
        (1, -arm),
        (1, arm),
        (arm, arm),
        (arm, 1),
        (-arm, 1),
        (-arm, arm),
        (-1, arm),
        (-1, -arm),
        (-arm, -arm),
    ]


def _heart() -> Points:
    t = np.linspace(0.0, 2.0 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [(float(a) / 16, float(b + 2.5) / 15) for a, b in zip(x, y, strict=True)]


# Outlines in units of the object's radius, y downwards.
SHAPES: dict[str, Points] = {
    "circle": _radial(60, [0.95]),
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0.0, -1.0), (1.0, 0.85), (-1.0, 0.85)],
    "star": _radial(10, [1.1, 0.45]),
    "cross": _cross(0.36),
    "heart": _heart(),
}


@dataclass(frozen=True)
class Placed:
    """One object of a layout: what it is, its centre and radius in fractions of the image side, its tilt in degrees."""

    color: str
    shape: str
    x: float
    y: float
    radius: float
    tilt: float


@dataclass(frozen=True)
class Scene:
    """A painted layout. `objects` run left to right; `masks` is bool [objects, size, size]."""

    image: Image.Image
    objects: tuple[Placed, ...]
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class Word:
    """A piece of an answer with its leading space. `index` is the object that a visual word names, else None."""

    text: str
    kind: WordKind = "filler"
    index: int | None = None


@dataclass(frozen=True)
class Question:
    """A question with its answer in words. `asked` are the positions of the words the question asks for."""

    kind: QuestionKind
    text: str
    words: tuple[Word, ...]
    asked: tuple[int, ...]

    @property
    def answer(self) -> str:
        return "".join(word.text for word in self.words)


def layout(seed: int) -> tuple[Placed, ...]:
    """One to three objects, left to right: they do not overlap, no two are alike, and their x differ by a margin."""
    rng = np.random.default_rng([seed, 0])
    count = int(rng.integers(1, 4))
    while True:
        # All at once: two objects already placed may leave no room for a third.
        placed = sorted((_random_object(rng) for _ in range(count)), key=lambda item: item.x)
        if all(_compatible(a, b) for a, b in combinations(placed, 2)):
            return tuple(placed)


def _random_object(rng: np.random.Generator) -> Placed:
    radius = float(rng.uniform(44, 70)) / SIZE
    low, high = 1.1 * radius, 1 - 1.1 * radius
    return Placed(
        color=str(rng.choice(list(COLORS))),
        shape=str(rng.choice(list(SHAPES))),
        x=float(rng.uniform(low, high)),
        y=float(rng.uniform(low, high)),
        radius=radius,
        tilt=float(rng.uniform(-12, 12)),
    )


def _compatible(a: Placed, b: Placed) -> bool:
    twins = a.color == b.color and a.shape == b.shape
    apart = np.hypot(a.x - b.x, a.y - b.y) >= 1.15 * (a.radius + b.radius)
    return bool(not twins and apart and abs(a.x - b.x) >= 0.17)


def draw_scene(seed: int, size: int = SIZE) -> Scene:
    """Paint `layout(seed)` on a textured background, `size` pixels square. Same seed and size, same pixels."""
    rng = np.random.default_rng([seed, 1])
    objects = layout(seed)
    canvas = _background(rng, size)
    masks = np.zeros((len(objects), size, size), dtype=np.bool_)
    for mask, item in zip(masks, objects, strict=True):
        _paint(canvas, mask, item, rng)
    pixels = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(Image.fromarray(pixels), objects, masks)


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


def _fillers(text: str) -> list[Word]:
    """Filler words of a phrase; commas and full stops are words of their own."""
    pieces = text.replace(",", "\0,").replace(".", "\0.").replace(" ", "\0 ").split("\0")
    return [Word(piece) for piece in pieces if piece]


def _pair(item: Placed, index: int) -> list[Word]:
    return [Word(f" {item.color}", "color", index), Word(f" {item.shape}", "shape", index)]


def describe(objects: Sequence[Placed]) -> Question:
    """'A red circle, a blue square and a green star.', left to right."""
    words: list[Word] = []
    for index, item in enumerate(objects):
        last = index == len(objects) - 1
        words += _fillers("A" if index == 0 else " and a" if last else ", a") + _pair(item, index)
    words += _fillers(".")
    asked = tuple(i for i, word in enumerate(words) if word.kind != "filler")
    return Question("describe", "Describe the image.", tuple(words), asked)


def what_color(objects: Sequence[Placed], index: int) -> Question:
    """'What color is the circle?' 'The circle is red.'; object `index` must be the only one of its shape."""
    color, shape = _pair(objects[index], index)
    words = (Word("The"), shape, Word(" is"), color, Word("."))
    return Question("what_color", f"What color is the{shape.text}?", words, (3,))


def which_shape(objects: Sequence[Placed], index: int) -> Question:
    """'Which shape is red?' 'The red shape is a circle.'; object `index` must be the only one of its colour."""
    color, shape = _pair(objects[index], index)
    words = (Word("The"), color, *_fillers(" shape is a"), shape, Word("."))
    return Question("which_shape", f"Which shape is{color.text}?", words, (5,))


def is_there(objects: Sequence[Placed], color: str, shape: str) -> Question:
    """'Is there a red circle?' 'Yes, there is a red circle.' or 'No, there is no red circle.'"""
    pairs = [(item.color, item.shape) for item in objects]
    index = pairs.index((color, shape)) if (color, shape) in pairs else None
    opening = "No, there is no" if index is None else "Yes, there is a"
    words = (
        *_fillers(opening),
        Word(f" {color}", "color", index),
        Word(f" {shape}", "shape", index),
        Word("."),
    )
    return Question("is_there", f"Is there a {color} {shape}?", words, (0,))


def color_questions(objects: Sequence[Placed]) -> list[Question]:
    """One `what_color` for every shape that occurs once."""
    counts = Counter(item.shape for item in objects)
    return [what_color(objects, i) for i, item in enumerate(objects) if counts[item.shape] == 1]


def shape_questions(objects: Sequence[Placed]) -> list[Question]:
    """One `which_shape` for every colour that occurs once."""
    counts = Counter(item.color for item in objects)
    return [which_shape(objects, i) for i, item in enumerate(objects) if counts[item.color] == 1]


def present_questions(objects: Sequence[Placed]) -> list[Question]:
    """One `is_there` answered yes for every object."""
    return [is_there(objects, item.color, item.shape) for item in objects]


def absent_questions(objects: Sequence[Placed], level: Literal["hard", "half", "easy"]) -> list[Question]:
    """Every `is_there` answered no at a level.

    hard: colour and shape both occur, on different objects; half: one of them occurs; easy: neither does.
    """
    pairs = {(item.color, item.shape) for item in objects}
    colors, shapes = {color for color, _ in pairs}, {shape for _, shape in pairs}
    wanted = {"hard": 2, "half": 1, "easy": 0}[level]
    return [
        is_there(objects, color, shape)
        for color, shape in product(COLORS, SHAPES)
        if (color, shape) not in pairs and (color in colors) + (shape in shapes) == wanted
    ]


def sample_questions(objects: Sequence[Placed], rng: np.random.Generator) -> list[Question]:
    """The questions that judge one scene: describe, one of each possible lookup, one with yes and one with no."""
    absent = absent_questions(objects, "hard") if rng.random() < 0.5 else []
    absent = absent or absent_questions(objects, "half" if rng.random() < 0.5 else "easy")
    pools = [color_questions(objects), shape_questions(objects), present_questions(objects), absent]
    return [describe(objects)] + [pool[int(rng.integers(len(pool)))] for pool in pools if pool]
