"""The colours and the outlines of the shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (40, 165, 60),
    "blue": (40, 80, 215),
    "yellow": (240, 215, 45),
    "purple": (140, 50, 170),
    "cyan": (50, 205, 215),
    "white": (245, 245, 245),
}
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
