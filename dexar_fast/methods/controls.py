"""Chance lines: maps that know nothing of the model. What a method scores above them, it has found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.methods import knobs
from dexar_fast.methods.base import WHOLE_ANSWER, Asked, Maps
from dexar_fast.vision.grid import Box, Grid

_BLIND = "A chance line: nothing of the model, the picture or the question is in it."
_RANDOM = "Map value of a patch: a random number from 0 to 1, another for each token."
_SMOOTH = "Map value of a patch: blurred random noise, less the lowest of its grid. It has no unit."
_CENTRE = (
    "Map value of a patch, from 0 to 1: the nearer to the centre of the picture, the higher; the same for each token."
)
_UNIFORM = "Map value of a patch: 1 everywhere. A map that does not vary is drawn without heat."


@dataclass(frozen=True)
class Random:
    """Each visual token's value by itself, uniform in [0, 1), other ones for each token of the answer.

    Raises:
        InputError: a seed that is no whole number from 0 to 2^64 - 1.
    """

    name: ClassVar[str] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        knobs.seed(self.seed)

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N], float32, the same for the same seed. The sequence map is their sum, as in all controls."""
        generator = torch.Generator().manual_seed(int(self.seed))
        return _found(asked, torch.rand(len(asked.targets), len(asked.visual), generator=generator), _RANDOM)


@dataclass(frozen=True)
class SmoothRandom:
    """White noise behind a Gaussian blur, on each grid: as smooth as maps are, and as blind.

    Attributes:
        width: the standard deviation of the blur, as a share of each side of a grid.
    Raises:
        InputError: a width that is no finite number above 0, or a seed as of `Random`.
    """

    name: ClassVar[str] = "random-smooth"
    width: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_width(self.width)
        knobs.seed(self.seed)

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N], float32; 0 at visual tokens outside the grids. Raises InputError where none is known."""
        generator = torch.Generator().manual_seed(int(self.seed))
        maps = torch.zeros(len(asked.targets), len(asked.visual))
        for grid in _grids(asked):
            noise = torch.randn(len(maps), grid.rows, grid.columns, generator=generator)
            smooth = _blur(grid.rows, self.width) @ noise @ _blur(grid.columns, self.width).T
            maps[:, torch.from_numpy(grid.cells)] = smooth - smooth.amin((1, 2), keepdim=True)
        return _found(asked, maps, _SMOOTH)


@dataclass(frozen=True)
class Centre:
    """A Gaussian around the centre of what the grids of an image cover: objects stand in the middle of photographs.

    Attributes:
        width: its standard deviation, as a share of each side.
    Raises:
        InputError: a width that is no finite number above 0.
    """

    name: ClassVar[str] = "centre"
    width: float = 0.25

    def __post_init__(self) -> None:
        _check_width(self.width)

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N], float32; 0 at visual tokens outside the grids. Raises InputError where none is known."""
        found = torch.zeros(len(asked.visual))
        for grid, across, down in _centred(asked):
            distance = across[None, :].square() + down[:, None].square()
            found[torch.from_numpy(grid.cells)] = (-distance / (2 * float(self.width) ** 2)).exp()
        return _found(asked, found.expand(len(asked.targets), -1).clone(), _CENTRE)


@dataclass(frozen=True)
class Uniform:
    """The same value everywhere: scores what a part's share of the image is."""

    name: ClassVar[str] = "uniform"

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N] of ones, float32."""
        return _found(asked, torch.ones(len(asked.targets), len(asked.visual)), _UNIFORM)


def _found(asked: Asked, maps: Tensor, value: str) -> Maps:
    return Maps(maps, maps.sum(0), asked.grids, notes=(value, WHOLE_ANSWER, _BLIND))


def _grids(asked: Asked) -> tuple[Grid, ...]:
    if not asked.grids:
        raise InputError("this control is drawn on the grids of the visual tokens, and where these lie is not known")
    return asked.grids


def _check_width(width: float) -> None:
    if knobs.real("width", width) == 0:
        raise InputError(f"width {width} must be above 0: a share of a grid's side")


def _blur(size: int, width: float) -> Tensor:
    """[size, size]: rows of a Gaussian around each cell that sum to 1."""
    cells = torch.arange(size)
    distance = (cells[:, None] - cells) / (float(width) * size)
    return (-distance.square() / 2).softmax(1)


def _centred(asked: Asked) -> Iterator[tuple[Grid, Tensor, Tensor]]:
    """Each grid with its columns' and rows' distances from the centre of its image, as shares of the sides covered."""
    for grid in _grids(asked):
        boxes = _boxes(asked, grid.image)
        left, top, right, bottom = torch.tensor(boxes[grid])
        every = torch.tensor(list(boxes.values()))
        low, high = every[:, :2].amin(0), every[:, 2:].amax(0)
        across = (left + _middles(grid.columns) * (right - left) - low[0]) / (high[0] - low[0]) - 0.5
        down = (top + _middles(grid.rows) * (bottom - top) - low[1]) / (high[1] - low[1]) - 0.5
        yield grid, across, down


def _boxes(asked: Asked, image: int) -> dict[Grid, Box]:
    """What each grid of an image covers: in pixels, or of a picture that all of them cover, in shares of its sides."""
    grids = [grid for grid in asked.grids if grid.image == image]
    in_pixels = any(grid.box is not None for grid in grids) and image < len(asked.images)
    width, height = asked.images[image].size if in_pixels else (1, 1)
    return {grid: grid.box or (0.0, 0.0, float(width), float(height)) for grid in grids}


def _middles(cells: int) -> Tensor:
    return (torch.arange(cells) + 0.5) / cells
