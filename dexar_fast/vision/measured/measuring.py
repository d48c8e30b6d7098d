"""The place of each visual token, measured; and whether a layout that is given is right."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dexar_fast.vision.grid import Grid, Size
from dexar_fast.vision.measured import checking, decoding
from dexar_fast.vision.measured.codes import Codes, Signs, picture, textured
from dexar_fast.vision.measured.lattice import Places, grids, snapped

L = TypeVar("L")
See = Callable[[list[Image.Image]], Tensor]  # what enters the decoder, [N, d], once these pictures are shown
WHOLE = [Grid(0, 0, 1, 1)]  # of a picture that is one token
MOST = 0.7  # of the tokens that answer: grids that hold fewer were found by chance
LEAST = 2.0  # pixels along a side of a cell: stripes of a smaller one are not told apart
DIRECTIONS = 128  # random ones, in which features are compared: enough to tell them apart


@dataclass(frozen=True)
class Measuring:
    """Shows pictures of these sizes to a model in which no token reads another.

    Args:
        stills: how many of them, the first, are no frames of a video; None: all.
        grain: of a texture that stands for white, and its inverse for black, in pixels: where a model takes the mean of
            each patch off, plain ones are alike. 0: plain ones.
    """

    see: See
    sizes: Sequence[Size]
    stills: int | None = None
    grain: int = 0

    @classmethod
    def at_first(
        cls,
        layers: Iterable[L],
        see: Callable[[L, list[Image.Image]], Tensor],
        sizes: Sequence[Size],
        stills: int | None = None,
    ) -> Self | None:
        """Where pictures first change what enters a layer at the visual tokens; None where they never do."""
        for layer in layers:
            found = cls(partial(see, layer), sizes, stills)
            if bool((found.white != 0).any()):
                return found
        for layer in itertools.islice(layers, 1):
            found = cls(partial(see, layer), sizes, stills, _grain(sizes, len(found.white)))
            if bool((found.white != 0).any()):
                return found
        return None

    @cached_property
    def white(self) -> Tensor:
        """[N, DIRECTIONS] of what white pictures make and what black ones make."""
        return self._difference([np.ones(size[::-1], np.int8) for size in self.sizes])

    def grids(self) -> list[Grid]:
        """Where the visual tokens lie, as far as they answer; what the check finds otherwise is left out."""
        if self._is_one_token:
            return WHOLE
        codes = Codes.of(self.sizes, len(self.white), self.stills)
        differences = torch.stack([self._difference(signs) for signs in codes.patterns()])
        answers = decoding.Answers.of(differences, self.white)
        places = placed(codes, answers)
        found = [snapped(grid, self.sizes[grid.image]) for grid in grids(places)]
        found = self.confirmed([grid for grid in found if checking.side(grid, self.sizes) >= LEAST])
        held = sum(int(answers.answered[grid.cells].sum()) for grid in found)
        return found if held > MOST * answers.answered.sum() else []

    def confirmed(self, found: Sequence[Grid]) -> list[Grid]:
        """Those of the grids that predict what their tokens answer to random blocks."""
        if [*found] == WHOLE and self._is_one_token:
            return WHOLE
        shown = checking.blocks(found, self.sizes) if found else []
        answers = [self._difference(each.signs) for each in shown]
        return [grid for grid in found if self._agreement(grid, shown, answers) > checking.AGREE]

    @property
    def _is_one_token(self) -> bool:
        """A picture that is one token, which can lie nowhere else."""
        return len(self.white) == len(self.sizes) == 1

    def _agreement(self, grid: Grid, shown: list[checking.Blocks], answers: list[Tensor]) -> float:
        pairs = [(each, of) for each, of in zip(shown, answers, strict=True) if grid in each.grids]
        if not pairs:
            return 0.0
        cells = torch.from_numpy(grid.cells.ravel())
        expected = [checking.expected(grid, self.sizes, each.signs).ravel() for each, _ in pairs]
        return checking.agreement(np.stack(expected), torch.stack([of[cells] for _, of in pairs]), self.white[cells])

    def _difference(self, signs: Sequence[Signs]) -> Tensor:
        """[N, DIRECTIONS] of what the pictures make and what their inverses make."""
        shown = [textured(each, self.grain) if self.grain else each for each in signs]
        one, other = (self.see([picture(sign * each) for each in shown]) for sign in (1, -1))
        apart = (one - other).flatten(1)
        if apart.shape[1] <= DIRECTIONS:
            return apart
        return apart @ torch.randn(apart.shape[1], DIRECTIONS, generator=torch.Generator().manual_seed(0))


def _grain(sizes: Sequence[Size], tokens: int) -> int:
    """A third of the side of a cell, if the tokens lie over all of the pictures."""
    area = sum(width * height for width, height in sizes)
    return max(1, round(math.sqrt(area / max(1, tokens)) / 3))


def placed(codes: Codes, answers: decoding.Answers) -> Places:
    """Where each token lies, by what it answered to the codes."""
    across, down, which = np.split(answers.shares, [codes.across, codes.across + codes.down], axis=1)
    x, width = decoding.places(across, codes.across)
    y, height = decoding.places(down, codes.down)
    image, frames = codes.images_of(which, answers.answered)
    scale = np.array(codes.sizes, dtype=float)[image]
    answered = np.where(answers.answered, image, -1)
    return Places(answered, frames, x * scale[:, 0], y * scale[:, 1], width * scale[:, 0], height * scale[:, 1])
