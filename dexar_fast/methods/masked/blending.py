"""Pixels of a picture blended with others by a soft mask, behind the processor, so that gradients lead to the mask.

Where each processed value comes from is measured: the processor gets a picture that grows brighter from left to right,
one that grows from top to bottom, a black and a white one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample

from dexar_fast.errors import InputError
from dexar_fast.prompt.remade.pixels import Pixels

WHITE = 255
OFF = 0.02  # of the way from black to white: what rounding to whole brightnesses leaves


@dataclass(frozen=True)
class Blending:
    """A picture, another in its place, and where their processed values lie.

    Attributes:
        shown, hidden: by name what the processor makes of each, on the model's device.
        places: by name [1, P, 1, 2], on the CPU, the x and y of each of P values in the picture, from -1 to 1.
        inside: by name, bool as the values: those that show the picture, and no padding.
    """

    shown: Mapping[str, Tensor]
    hidden: Mapping[str, Tensor]
    places: Mapping[str, Tensor]
    inside: Mapping[str, Tensor]

    def __call__(self, masks: Sequence[Tensor], scale: float = 1.0, swapped: bool = False) -> dict[str, Tensor]:
        """The values where scale times the product of masks [rows, columns] shows the picture in part: 1 shows it.

        Args:
            masks: on the CPU.
            swapped: whether the other picture is what is shown.
        """
        return {name: self._blended(name, masks, scale, swapped) for name in self.shown}

    def _blended(self, name: str, masks: Sequence[Tensor], scale: float, swapped: bool) -> Tensor:
        sampled = torch.stack([self._sampled(name, mask) for mask in masks])
        share = scale * sampled.prod(0).view_as(self.shown[name]).to(self.shown[name].device)
        share = torch.where(self.inside[name], 1 - share if swapped else share, 1)
        return share * self.shown[name] + (1 - share) * self.hidden[name]

    def _sampled(self, name: str, mask: Tensor) -> Tensor:
        """A mask at each of the P values."""
        places = self.places[name].to(mask)
        return grid_sample(mask[None, None], places, "bilinear", "border", align_corners=False).flatten()


def blending(pixels: Pixels, picture: Image.Image, other: Image.Image, device: torch.device) -> Blending:
    """Of a request with one picture.

    Raises:
        InputError: the processor makes a value of more than the pixels at its place.
    """
    black, white, across, down = (pixels.of([image]) for image in _probes(*picture.size))
    _check(pixels, picture.size, black, white)
    inside = {name: (white[name] - black[name]).abs() > 0 for name in black}
    found = {}
    for name, is_inside in inside.items():
        span = torch.where(is_inside, white[name] - black[name], 1).float()
        x, y = ((probe[name] - black[name]).float() / span for probe in (across, down))
        found[name] = (torch.stack([x, y], -1) * 2 - 1).view(1, -1, 1, 2)
    shown, hidden = ({n: v.to(device) for n, v in pixels.of([image]).items()} for image in (picture, other))
    return Blending(shown, hidden, found, {name: each.to(device) for name, each in inside.items()})


def _probes(width: int, height: int) -> list[Image.Image]:
    """Black, white, brighter from left to right, brighter from top to bottom."""
    across = np.broadcast_to(_ramp(width), (height, width))
    down = np.broadcast_to(_ramp(height)[:, None], (height, width))
    return [*(_plain(width, height, level) for level in (0, WHITE)), *map(_grey, (across, down))]


def _ramp(length: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.round((np.arange(length) + 0.5) / length * WHITE).astype(np.uint8)


def _plain(width: int, height: int, level: int) -> Image.Image:
    return Image.new("RGB", (width, height), (level,) * 3)


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.repeat(values[..., None], 3, -1)))


def _check(pixels: Pixels, size: tuple[int, int], black: Mapping[str, Tensor], white: Mapping[str, Tensor]) -> None:
    """Raises InputError unless a grey picture lies between black and white in every value."""
    grey = pixels.of([_plain(*size, WHITE // 3)])
    for name, values in grey.items():
        expected = black[name].float() + (white[name] - black[name]).float() / 3
        if ((values - expected).abs() > OFF * (white[name] - black[name]).abs().max()).any():
            raise InputError(
                "this processor makes pixels of more than the brightness at their place: no mask blends them"
            )
