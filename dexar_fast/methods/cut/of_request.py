"""The pictures of a request, cut into regions as a method's knobs say; what is checked of these knobs."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from dexar_fast.generation.asked import Asked
from dexar_fast.methods import knobs
from dexar_fast.methods.cut.divided import SEGMENTATIONS, Divided, divided, label_maps
from dexar_fast.methods.cut.hiding import FILLS
from dexar_fast.methods.cut.seen import seen_by
from dexar_fast.prompt.remade.pixels import Pixels


class Cutting(Protocol):
    """The knobs of a method that hides regions; `dexar_fast.methods.Eagle` says what they are."""

    @property
    def regions(self) -> int: ...
    @property
    def segmentation(self) -> str: ...
    @property
    def labels(self) -> Any: ...
    @property
    def fill(self) -> str: ...
    @property
    def batch(self) -> int | None: ...


def check(method: Cutting) -> None:
    """Raises InputError for a value that no request gives a meaning to."""
    knobs.whole("regions", method.regions, 1)
    knobs.one_of("segmentation", method.segmentation, SEGMENTATIONS)
    knobs.one_of("fill", method.fill, FILLS)
    if method.labels is not None:
        label_maps(method.labels)
    if method.batch is not None:
        knobs.whole("batch", method.batch, 1)


def of_request(method: Cutting, asked: Asked) -> tuple[Pixels, Divided, Tensor]:
    """The pixels of a request, its pictures cut into regions, and which of them the model sees, [M] int64.

    Raises:
        InputError: no pictures or no processor for them, labels that do not fit, or the model sees no region.
    """
    pixels = Pixels(asked.processor, asked.inputs, asked.images)
    grids = asked.grids if asked.exact else ()  # else the pixels tell which regions the processor leaves out
    about = method.regions, method.segmentation, method.labels, method.fill
    cut = divided(asked.images, grids, *about, pixels.frames)
    return pixels, cut, seen_by(cut, grids, pixels.of)
