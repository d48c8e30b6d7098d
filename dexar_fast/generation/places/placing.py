"""Where the visual tokens of a request lie: as its inputs declare, unless measuring finds them elsewhere."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from dexar_fast.generation.places.kept import Found, family_key, keep, key_of, recalled
from dexar_fast.generation.places.shown import AmongIds, Elsewhere, Shown
from dexar_fast.generation.setup import Setup
from dexar_fast.model.lending.session import borrowed
from dexar_fast.model.prefill import BegunPrompt
from dexar_fast.prompt.request import Request
from dexar_fast.vision.families import CODED
from dexar_fast.vision.geometry import CHECKED, DECLARED, MEASURED, NONE, Layout, nowhere
from dexar_fast.vision.grid import Grid
from dexar_fast.vision.measured.measuring import Measuring

ELSEWHERE = "where its visual tokens lie was measured: it is not where its inputs declare them"
SHARED = "what its visual tokens hold reaches them through attention alone, and so has no place (learned queries, say)"
ELSEWHERE_READ = (
    "the model reads it elsewhere than among the prompt's tokens, and where its keys lie in it is not known"
)
DOUBTED = (
    "pictures of random blocks did not confirm where the visual tokens of this model family lie, and nothing else was "
    "found: the maps may lie elsewhere"
)
FINEST = 6  # pixels of the pictures for each token: two by two or three
TINY = "the picture is so small that its visual tokens see about two pixels each, which measuring does not tell apart"
MIXED = "no part of it was found that one visual token answers to alone"


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
    with borrowed(setup.model):
        return found_by(AmongIds(setup, request, images, declared.positions), declared.grids)


def found_by(shown: Shown, declared: tuple[Grid, ...]) -> Found:
    """The same of a model that is shown other pictures; it is on loan."""
    sizes, stills = shown.sizes, shown.stills
    quick = Measuring.at_first(shown.layers, shown.quickly, sizes, stills)
    if quick is not None and declared and len(quick.confirmed(declared)) == len(declared):
        return Found(CHECKED, declared)
    whole = Measuring.at_first(shown.layers, shown.wholly, sizes, stills)
    if whole is None:
        return Found(NONE, reason=SHARED)
    likely = quick.grids() if quick is not None else []
    grids = whole.confirmed(likely) if likely else whole.grids()
    if not grids:
        area = sum(width * height for width, height in sizes)
        return Found(NONE, reason=TINY if area < FINEST * len(whole.white) else MIXED)
    return Found(MEASURED, tuple(replace(grid, video=grid.image >= stills) for grid in grids))


def settled_elsewhere(setup: Setup, request: Request, begun: BegunPrompt) -> Layout:
    """What measuring finds of a prompt that a model which reads its image elsewhere has begun; it is on loan."""
    unknown, images = nowhere(begun.visual, ELSEWHERE_READ), request.images
    if not images or setup.processor is None or setup.decoder is None:
        return unknown
    try:
        key = key_of(setup.model, setup.processor, request.inputs, unknown, [image.size for image in images])
        found = recalled(key)
        if found is None:
            found = found_by(Elsewhere(setup, request, images, setup.decoder, begun), ())
            keep(key, found)
    except Exception:  # as above
        return unknown
    return _layout(unknown, found)


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
