"""iGOS++: masks of a picture, found by integrated gradients, that destroy the answer and that restore it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dexar_fast.attribution.masked import MaskedForwards
from dexar_fast.errors import InputError
from dexar_fast.methods import knobs
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.cut.hiding import FILLS, cover
from dexar_fast.methods.masked.blending import blending
from dexar_fast.methods.masked.mask_search import MaskSearch, edges_of
from dexar_fast.model.lending.frozen import frozen
from dexar_fast.model.memory import fitting
from dexar_fast.prompt.remade.pixels import Pixels
from dexar_fast.vision.grid import Grid

Variant = Literal["paper", "eagle"]

_NOTES = (
    "Map value of a place, from 0 to 1: how far the masks hide it, after their search for the smallest smooth part of "
    "the picture whose loss destroys the answer, and whose return restores it. Fill of what is hidden: {}.",
    "Map of the whole answer: the masks of the sum of its tokens' log-probabilities, not the sum of their maps.",
    "The search is short and has noise in it: another seed, a somewhat different map.",
)


@dataclass(frozen=True)
class IgosPp:
    """map = 1 - m_d m_i, scaled to [0, 1] (arXiv 2012.15783): masks of side x side cells, 1 shows the picture.

    With J(m) the mean over k = 1 .. steps of the log-probability of the token under the picture blended by k/steps m
    with another, noise added, and J~ the same with picture and other swapped, a search lowers

        ( J(m_d m_i) - J~(m_d m_i) + J(m_d) - J~(m_i) ) / 2
        + mean |1 - M| + 10 bilateral total variation(M) + l2 sum (1 - M)^2, M = m_d m_i

    by Nesterov steps. Masks blend processed pixels: each value by the mask at its place in the picture. Each map takes
    4 iterations * steps forwards and backwards.

    Attributes:
        tokens: which tokens get a map of their own (negative from the end); None is all; the others' is 0.
        side, steps, iterations: see above. noise: its standard deviation, of processed pixels.
        fill: the other picture: "blur", "mean", "black" or "noise".
        variant: "paper", or "eagle": the baseline in EAGLE's repository, which swaps nothing, so that the insertion
            mask learns to keep the picture.
        seed: of the noise.
    Raises:
        InputError: a value that means nothing.
    """

    name: ClassVar[str] = "igos++"
    contrasts: ClassVar[bool] = True
    tokens: Sequence[int] | None = None
    side: int = 32
    steps: int = 10
    iterations: int = 5
    noise: float = 0.2
    fill: str = "blur"
    variant: Variant = "paper"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("side", "steps", "iterations"):
            knobs.whole(name, getattr(self, name), 1)
        knobs.real("noise", self.noise)
        knobs.one_of("fill", self.fill, FILLS)
        knobs.one_of("variant", self.variant, ("paper", "eagle"))
        knobs.seed(self.seed)
        if self.tokens is not None:
            object.__setattr__(self, "tokens", tuple(knobs.indices("tokens", self.tokens)))

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, side * side] in [0, 1], float32.

        Raises:
            InputError: no picture, several, no processor for it or one whose pixels no mask blends; a token beyond.
            OutOfMemoryError: one forward with its graph does not fit.
        """
        chosen, search = knobs.tokens_of(self.tokens, len(asked.targets)), self._search(asked)
        request = asked.inputs, asked.targets, asked.decoder, asked.visual
        run = MaskedForwards(asked.model, *request, against=asked.against)
        found = torch.zeros(len(asked.targets), self.side**2)
        with fitting("one forward with its graph for method 'igos++'"), torch.enable_grad(), frozen(asked.model):
            whole = search.map(lambda shown: run.log_probabilities([shown]).sum()).flatten()
            for token in chosen:
                found[token] = search.map(partial(_of_token, run, token)).flatten()
        cells = (Grid(0, 0, self.side, self.side),)
        notes = [_NOTES[0].format(self.fill), *_NOTES[1:]]
        return Maps(found, whole, cells, notes=notes, diagnostics={"fill": self.fill, "tokens": chosen})

    def _search(self, asked: Asked) -> MaskSearch:
        pixels = Pixels(asked.processor, asked.inputs, asked.images)
        if len(asked.images) != 1 or pixels.frames:
            kind = "a video" if pixels.frames else len(asked.images)
            raise InputError(f"'igos++' masks one picture, and the request has {kind}")
        (picture,) = asked.images
        other = Image.fromarray(cover(np.asarray(picture), self.fill))
        return MaskSearch(
            blending(pixels, picture, other, asked.model.device),
            edges_of(picture, self.side),
            self.side,
            self.steps,
            self.iterations,
            float(self.noise),
            swaps=self.variant == "paper",
            seed=int(self.seed),
        )


def _of_token(run: MaskedForwards, token: int, shown: dict[str, Tensor]) -> Tensor:
    return run.log_probabilities([shown])[0, token]
