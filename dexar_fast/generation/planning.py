"""What the pass computes for a request: which keys, which layers, which scores."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from PIL import Image

from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.attribution.sums import LayerSums
from dexar_fast.attribution.tails.trust import Tails
from dexar_fast.attribution.text_keys import text_mask
from dexar_fast.attribution.text_maps import TextSums
from dexar_fast.backends.ops import Scoring
from dexar_fast.errors import InputError, ModelError
from dexar_fast.generation.places.placing import ELSEWHERE_READ, settled
from dexar_fast.generation.setup import Setup
from dexar_fast.model.elsewhere.image_keys import NO_IDS
from dexar_fast.model.prefill import BegunPrompt
from dexar_fast.prompt.remade.seen import placed
from dexar_fast.prompt.request import Request
from dexar_fast.vision.geometry import Layout, nowhere


def check_knobs(setup: Setup, placed: Layout) -> None:
    """Raises InputError for knobs that have no meaning for a request: where image and text are no one sequence, say."""
    knobs = setup.settings
    if knobs.map_filter is not None and not placed.grids:
        raise InputError(f"map_filter works on 2-D maps, and {placed.warning}: leave it out")
    if setup.elsewhere and knobs.mode == "official":
        raise InputError("mode='official' is the authors' code, which has no images beside the prompt: leave it out")
    if setup.elsewhere and knobs.text_relevance:
        raise InputError("text_relevance is found where image and text stand in one sequence: leave it out")
    if setup.elsewhere and setup.against is not None:
        raise InputError("against is defined where image and text stand in one sequence: leave it out")


def check_method(setup: Setup) -> None:
    """Raises ModelError where the other methods are not defined."""
    if setup.elsewhere:
        raise ModelError(
            f"{type(setup.model).__name__} reads its image elsewhere than among the prompt's tokens: the only method "
            "for it is 'dex-ar'"
        )


def pictured(setup: Setup, request: Request) -> tuple[list[Image.Image], Layout]:
    """The pictures that the model saw, and where the visual tokens lie in them. Raises as `placed` does."""
    if setup.elsewhere:
        return request.images, nowhere(NO_IDS, ELSEWHERE_READ)  # until its prompt has run
    images, declared = placed(setup.model.config, setup.processor, replace(request, inputs=request.on_host))
    return images, settled(setup, request, images, declared)


def plan_of(
    setup: Setup, request: Request, placed: Layout, answer: int, tails: Tails | None, begun: BegunPrompt | None
) -> Plan:
    """What to compute for an answer of so many tokens at most; the prompt has run, so the decoder is known."""
    chosen, decoder = setup.settings, setup.decoder
    assert decoder is not None
    prompt, beside, visual = len(request.ids), 0, placed.positions
    inputs, content = request.inputs, request.content
    if begun is not None:
        prompt, beside, inputs, content = begun.prompt, begun.beside, begun.inputs, begun.numbered(content)
    return Plan(
        prompt=prompt,
        layers=chosen.layers_of(len(decoder.layers)),
        visual=visual,
        text=text_mask(chosen, beside + prompt, beside + prompt + answer, visual, content),
        sums=partial(_sums, setup, len(visual), _scoring(setup, placed)),
        backend=setup.backend,
        double_final_norm=chosen.mode == "official",
        inputs=inputs,
        tails=tails,
        beside=beside,
        against=request.against,
    )


def _scoring(setup: Setup, placed: Layout) -> Scoring:
    chosen = setup.settings
    return Scoring(
        head_score=chosen.head_score,
        map_filter=chosen.map_filter,
        grids=tuple(torch.from_numpy(grid.cells) for grid in placed.grids),
        with_range=chosen.mode == "official",
        head_filter=chosen.head_filter,
        backend=setup.backend,
    )


def _sums(setup: Setup, visual: int, scoring: Scoring) -> LayerSums:
    """What takes the layers of a chunk."""
    chosen, text = setup.settings, None
    if chosen.text_relevance:
        text = TextSums(Scoring(head_score=chosen.head_score, backend=setup.backend))
    return LayerSums(visual, scoring, text)
