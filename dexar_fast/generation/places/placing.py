"""Where the visual tokens of a request lie: as its inputs declare, unless measuring finds them elsewhere."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image
from torch import Tensor, nn

from dexar_fast.generation.places.kept import Found, keep, key_of, recalled
from dexar_fast.generation.setup import Setup
from dexar_fast.model.lending.session import borrowed
from dexar_fast.prompt.pixels import Pixels
from dexar_fast.prompt.request import Request
from dexar_fast.vision.geometry import CHECKED, DECLARED, MEASURED, NONE, Layout, nowhere
from dexar_fast.vision.measured.entering import entering, layers
from dexar_fast.vision.measured.measuring import Measuring

ELSEWHERE = "where its visual tokens lie was measured: it is not where its inputs declare them"
SHARED = "what its visual tokens hold reaches them through attention alone, and so has no place (learned queries, say)"
MIXED = "no part of it was found that one visual token answers to alone"


def settled(setup: Setup, request: Request, images: list[Image.Image], declared: Layout) -> Layout:
    """The declared layout where it is a known family's, or nothing can be measured; else what measuring finds."""
    if declared.how == DECLARED or not images or setup.processor is None:
        return declared
    key = key_of(setup.model, setup.processor, request.inputs, declared, [image.size for image in images])
    found = recalled(key)
    if found is None:
        try:
            found = measured(setup, request, images, declared)
        except Exception:  # a processor or a forward may refuse such pictures, each with errors of its own
            return declared
        keep(key, found)
    return _layout(declared, found)


def measured(setup: Setup, request: Request, images: list[Image.Image], declared: Layout) -> Found:
    """The declared grids, if the check confirms all of them; else those that are measured.

    Raises:
        InputError: the processor makes other pixels of the pictures than the inputs hold.
        Unreadable: what enters the decoder cannot be read.
    """
    pixels = Pixels(setup.processor, request.inputs, images)
    show = partial(_entering, setup.model, request, pixels, declared.positions)
    with borrowed(setup.model):
        measuring = Measuring.at_first(layers(setup.model), show, [image.size for image in images])
        if measuring is None:
            return Found(NONE, reason=SHARED)
        if declared.grids and len(measuring.confirmed(declared.grids)) == len(declared.grids):
            return Found(CHECKED, declared.grids)
        grids = measuring.grids()
    stills = len(images) - pixels.frames
    return Found(MEASURED, tuple(replace(grid, video=grid.image >= stills) for grid in grids), None if grids else MIXED)


def _entering(
    model: Any, request: Request, pixels: Pixels, positions: Tensor, layer: nn.Module, images: list[Image.Image]
) -> Tensor:
    """What enters a layer at the visual tokens [N, d] once these pictures are shown."""
    shown = {name: value.to(request.inputs[name].device) for name, value in pixels.of(images).items()}
    return entering(model, layer, {**request.inputs, **shown}, positions)


def _layout(declared: Layout, found: Found) -> Layout:
    if not found.grids:
        return nowhere(declared.positions, str(found.reason))
    moved = found.how == MEASURED and declared.grids
    return Layout(declared.positions, found.grids, ELSEWHERE if moved else None, found.how)
