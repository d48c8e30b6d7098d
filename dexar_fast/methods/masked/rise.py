"""RISE: the mean of random soft masks, each weighted by what it leaves of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from dexar_fast.attribution.masked import MaskedForwards
from dexar_fast.errors import InputError
from dexar_fast.methods import knobs
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.cut import of_request
from dexar_fast.methods.cut.divided import Divided
from dexar_fast.methods.cut.hiding import cover
from dexar_fast.methods.masked.game import OfRegions, maps_of

_NOTE = (
    "Map value of a region: the probability that the token keeps under random soft masks that show the region, less "
    "its mean over all masks; 0 where negative."
)
_LIMIT = "It is a mean of {} random masks: other masks, a somewhat different map."


@dataclass(frozen=True, eq=False)
class Rise(OfRegions):
    """map[t, r] = relu( mean_k ( p_t(mask_k) - mean p_t ) mask_k[r] / share ), mask_k[r] its mean over region r.

    Masks as in arXiv 1806.07421: side x side cells of a picture, each shown with probability `share`, enlarged
    bilinearly, moved by less than a cell at random. The paper's sum differs by the mean of p_t, which adds to every
    region alike but for chance.

    Attributes:
        samples: how many masks: one forward each. side: cells across. share: of cells that are shown.
        seed: of the masks.
    Raises:
        InputError: no samples or cells, or a share that is not between 0 and 1.
    """

    name: ClassVar[str] = "rise"
    regions: int = 196
    samples: int = 256
    side: int = 8
    share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        knobs.whole("samples", self.samples, 1)
        knobs.whole("side", self.side, 1)
        knobs.seed(self.seed)
        if not 0 < knobs.real("share", self.share) < 1:
            raise InputError(f"share lies between 0 and 1, not {self.share!r}")

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N]. Raises as `game.OfRegions.game`."""
        pixels, cut, seen = of_request.of_request(self, asked)
        covers = [cover(picture, self.fill) for picture in cut.pictures]

        def made(chosen: range) -> list[dict[str, Tensor]]:
            return pixels.of_each([_shown(cut, covers, self._masks(cut, i)) for i in chosen])

        request = asked.inputs, asked.targets, asked.decoder, asked.visual
        run = MaskedForwards(asked.model, *request, batch=self.batch, against=asked.against)
        scores = run(self.samples, made).double()
        shares = torch.stack([_of_regions(cut, self._masks(cut, i)) for i in range(self.samples)])
        values = (scores - scores.mean(0)).T @ shares / (self.samples * float(self.share))
        return maps_of(cut, seen, values[:, seen], (_NOTE, _LIMIT.format(self.samples)), forwards=self.samples)

    def _masks(self, cut: Divided, number: int) -> list[NDArray[np.float32]]:
        """[height, width] in [0, 1] of each picture: the mask of a number, the same whenever it is asked for."""
        generator = torch.Generator().manual_seed(_seeded(int(self.seed), number))
        return [self._mask(labels.shape, generator) for labels in cut.labels]

    def _mask(self, size: Sequence[int], generator: torch.Generator) -> NDArray[np.float32]:
        height, width = size
        drawn = torch.rand(self.side + 1, self.side + 1, generator=generator, dtype=torch.float32)
        cells = (drawn < self.share).float()
        down, across = -(-height // self.side), -(-width // self.side)
        large = interpolate(
            cells[None, None], ((self.side + 1) * down, (self.side + 1) * across), mode="bilinear", align_corners=False
        )[0, 0]
        top, left = (int(torch.randint(most, (), generator=generator)) for most in (down, across))
        return large[top : top + height, left : left + width].numpy()


def _seeded(seed: int, number: int) -> int:
    """What the generator of a mask starts from, in 64 bits; a seed that leaves its number no room is mixed with it."""
    side_by_side = (seed << 20) + number
    if side_by_side <= knobs.MOST_SEED:
        return side_by_side
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0])


def _shown(cut: Divided, covers: list[NDArray[np.uint8]], masks: list[NDArray[np.float32]]) -> list[Image.Image]:
    """The pictures where their masks are 1, and covered where they are 0."""
    return [
        Image.fromarray((mask[..., None] * picture + (1 - mask[..., None]) * covered).round().astype(np.uint8))
        for picture, covered, mask in zip(cut.pictures, covers, masks, strict=True)
    ]


def _of_regions(cut: Divided, masks: list[NDArray[np.float32]]) -> Tensor:
    """[N] float64: the mean of the masks over each region."""
    pairs = list(zip(cut.labels, masks, strict=True))
    sums = sum(np.bincount(labels.ravel(), mask.ravel(), cut.count) for labels, mask in pairs)
    sizes = sum(np.bincount(labels.ravel(), minlength=cut.count) for labels, _ in pairs)
    return torch.from_numpy(sums / sizes)
