"""Where the visual tokens of a request lie: as its inputs declare, unless measuring finds them elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from PIL import Image
from torch import Tensor, nn

from dexar_fast.generation.places.kept import Found, family_key, keep, key_of, recalled
from dexar_fast.generation.setup import Setup
from dexar_fast.model.lending.session import borrowed
from dexar_fast.prompt.remade.pixels import Pixels
from dexar_fast.prompt.request import Request
from dexar_fast.vision.families import CODED
from dexar_fast.vision.geometry import CHECKED, DECLARED, MEASURED, NONE, Layout, nowhere
from dexar_fast.vision.measured.entering import entering, layers
from dexar_fast.vision.measured.measuring import Measuring
from dexar_fast.vision.measured.skipping import Blocks

ELSEWHERE = "where its visual tokens lie was measured: it is not where its inputs declare them"
SHARED = "what its visual tokens hold reaches them through attention alone, and so has no place (learned queries, say)"
DOUBTED = (
    "pictures of random blocks did not confirm where the visual tokens of this model family lie, and nothing else was "
    "found: the maps may lie elsewhere"
)
MIXED = "no part of it was found that one visual token answers to alone"

_towers: WeakKeyDictionary[nn.Module, Blocks] = WeakKeyDictionary()


def settled(setup: Setup, request: Request, images: list[Image.Image], declared: Layout) -> Layout:
    """The declared layout where it is confirmed, or nothing can be measured; else what measuring finds.

    That of a known family is checked once for pictures of a kind; another one for pictures of a size.
    """
    told_by_codes = declared.how == DECLARED and setup.model.config.model_type in CODED
    if not images or setup.processor is None or told_by_codes:
        return declared
    sizes = [image.size for image in images]
    try:
        family = family_key(setup.model, setup.processor, declared, sizes) if declared.how == DECLARED else None
        if family is not None and recalled(family) is not None:
            return declared
        key = key_of(setup.model, setup.processor, request.inputs, declared, sizes)
        found = recalled(key)
        if found is None:
            found = measured(setup, request, images, declared)
            keep(key if family is None or found.how != CHECKED else family, found)
    except Exception:  # a processor or a forward may refuse such pictures, each with errors of its own
        return declared
    return _layout(declared, found)


def measured(setup: Setup, request: Request, images: list[Image.Image], declared: Layout) -> Found:
    """The declared grids, if the check confirms all of them; else those that are measured.

    Raises:
        InputError: the processor makes other pixels of the pictures than the inputs hold.
        Unreadable: what enters the decoder cannot be read.
    """
    pixels = Pixels(setup.processor, request.inputs, images)
    with borrowed(setup.model):
        shown = _Shown(setup.model, request, pixels, declared)
        sizes, stills = [image.size for image in images], len(images) - pixels.frames
        quick = Measuring.at_first(shown.layers, shown.quickly, sizes, stills)
        if quick is not None and declared.grids and len(quick.confirmed(declared.grids)) == len(declared.grids):
            return Found(CHECKED, declared.grids)
        whole = Measuring.at_first(shown.layers, shown.wholly, sizes, stills)
        if whole is None:
            return Found(NONE, reason=SHARED)
        likely = quick.grids() if quick is not None else []
        grids = whole.confirmed(likely) if likely else whole.grids()
    if not grids:
        return Found(NONE, reason=MIXED)
    return Found(MEASURED, tuple(replace(grid, video=grid.image >= stills) for grid in grids))


class _Shown:
    """A model that is shown other pictures than those of a request; what enters its layers at the visual tokens."""

    def __init__(self, model: Any, request: Request, pixels: Pixels, declared: Layout) -> None:
        self._model, self._inputs, self._pixels = model, request.inputs, pixels
        self._positions = declared.positions
        self.layers = layers(model)
        if model not in _towers:
            _towers[model] = Blocks(model, self.layers)

    def wholly(self, layer: nn.Module, images: list[Image.Image]) -> Tensor:
        """[N, d] through the whole tower."""
        shown = {name: value.to(self._inputs[name].device) for name, value in self._pixels.of(images).items()}
        return entering(self._model, layer, {**self._inputs, **shown}, self._positions)

    def quickly(self, layer: nn.Module, images: list[Image.Image]) -> Tensor:
        """The same without the blocks of the tower."""
        with _towers[self._model].left_out():
            return self.wholly(layer, images)


def _layout(declared: Layout, found: Found) -> Layout:
    known = declared.how == DECLARED
    if known and (found.how == CHECKED or found.reason == SHARED):  # models without a tower of their own, say
        return declared
    if known and not found.grids:
        return replace(declared, warning="; ".join(filter(None, [declared.warning, DOUBTED])))
    if not found.grids:
        return nowhere(declared.positions, str(found.reason), declared.clips)
    moved = found.how == MEASURED and declared.grids
    return replace(declared, grids=found.grids, warning=ELSEWHERE if moved else None, how=found.how)
