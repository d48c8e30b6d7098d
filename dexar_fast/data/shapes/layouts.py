"""What lies where in a scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from dexar_fast.data.shapes.outlines import COLORS, SHAPES

SIZE = 384  # pixels of a scene's side
LARGE, SMALL = (44, 70), (26, 40)  # the least and the largest radius, in pixels of SIZE
SIDEWAYS = 0.17  # the least distance in x of two objects of `layout`


@dataclass(frozen=True)
class Placed:
    """One object of a layout: what it is, its centre and radius in fractions of the image side, its tilt in degrees.

    Objects of a higher `layer` are painted over those of a lower one.
    """

    color: str
    shape: str
    x: float
    y: float
    radius: float
    tilt: float
    layer: int = 0


Layout = tuple[Placed, ...]


def layout(seed: int) -> Layout:
    """One to three objects, left to right: they do not overlap, no two are alike, and their x differ by a margin."""
    rng = np.random.default_rng([seed, 0])
    count = int(rng.integers(1, 4))
    while True:
        # All at once: two objects already placed may leave no room for a third.
        placed = _left_to_right([_random_object(rng) for _ in range(count)])
        if all(_compatible(a, b) for a, b in combinations(placed, 2)):
            return placed


def overlapping(seed: int) -> Layout:
    """Two or three objects, left to right, no two alike: one of them, in front, hides a part of another."""
    rng = np.random.default_rng([seed, 2])
    while True:
        behind = [_random_object(rng) for _ in range(int(rng.integers(1, 3)))]
        front = _before(behind[0], rng)
        if (
            _inside(front)
            and not any(_twins(a, b) for a, b in combinations([front, *behind], 2))
            and all(_apart(other, one) for other in behind[1:] for one in (front, behind[0]))
        ):
            return _left_to_right([*behind, front])


def crowd(seed: int) -> Layout:
    """Three to six small objects, left to right, apart; of two colours and two shapes, so that some are alike."""
    rng = np.random.default_rng([seed, 3])
    colors, shapes = (rng.choice(list(names), 2, replace=False) for names in (COLORS, SHAPES))
    placed: list[Placed] = []
    count = int(rng.integers(3, 7))
    while len(placed) < count:
        one = _random_object(rng, SMALL, colors, shapes)
        if all(_apart(one, other) for other in placed):
            placed.append(one)
    return _left_to_right(placed)


def covers(front: Placed, behind: Placed) -> bool:
    """Whether an object hides a part of another."""
    return front.layer > behind.layer and _distance(front, behind) < 0.85 * (front.radius + behind.radius)


def _random_object(
    rng: np.random.Generator,
    radii: tuple[float, float] = LARGE,
    colors: np.ndarray | tuple[str, ...] = tuple(COLORS),
    shapes: np.ndarray | tuple[str, ...] = tuple(SHAPES),
) -> Placed:
    radius = float(rng.uniform(*radii)) / SIZE
    low, high = 1.1 * radius, 1 - 1.1 * radius
    return Placed(
        color=str(rng.choice(colors)),
        shape=str(rng.choice(shapes)),
        x=float(rng.uniform(low, high)),
        y=float(rng.uniform(low, high)),
        radius=radius,
        tilt=float(rng.uniform(-12, 12)),
    )


def _before(behind: Placed, rng: np.random.Generator) -> Placed:
    """An object in front of another, which it hides to about a third."""
    front = _random_object(rng)
    distance = float(rng.uniform(0.45, 0.65)) * (front.radius + behind.radius)
    angle = float(rng.uniform(0, 2 * np.pi))
    x, y = behind.x + distance * float(np.cos(angle)), behind.y + distance * float(np.sin(angle))
    return replace(front, x=x, y=y, layer=1)


def _left_to_right(objects: list[Placed]) -> Layout:
    return tuple(sorted(objects, key=lambda item: item.x))


def _compatible(a: Placed, b: Placed) -> bool:
    return not _twins(a, b) and _apart(a, b) and abs(a.x - b.x) >= SIDEWAYS


def _twins(a: Placed, b: Placed) -> bool:
    return a.color == b.color and a.shape == b.shape


def _apart(a: Placed, b: Placed) -> bool:
    return _distance(a, b) >= 1.15 * (a.radius + b.radius)


def _distance(a: Placed, b: Placed) -> float:
    return float(np.hypot(a.x - b.x, a.y - b.y))


def _inside(item: Placed) -> bool:
    low, high = 1.1 * item.radius, 1 - 1.1 * item.radius
    return low <= item.x <= high and low <= item.y <= high
