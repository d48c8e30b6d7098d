"""What the pass computes for a request: which keys, which layers, which scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.attribution.sums import LayerSums
from dexar_fast.attribution.tail import Tails
from dexar_fast.attribution.text_keys import text_mask
from dexar_fast.attribution.text_maps import TextSums
from dexar_fast.backends import ops
from dexar_fast.backends.operands import LayerScores
from dexar_fast.generation.setup import Setup
from dexar_fast.model.prefill import Begun
from dexar_fast.prompt.request import Request
from dexar_fast.vision.geometry import Layout


def plan_of(
    setup: Setup, request: Request, placed: Layout, answer: int, tails: Tails | None, begun: Begun | None
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
        sums=partial(_sums, setup, len(visual), _score(setup, placed)),
        backend=setup.backend,
        double_final_norm=chosen.mode == "official",
        inputs=inputs,
        tails=tails,
        beside=beside,
    )


def _score(setup: Setup, placed: Layout) -> Callable[..., LayerScores]:
    """ops.head_score with its knobs filled in."""
    chosen = setup.settings
    return partial(
        ops.head_score,
        head_score=chosen.head_score,
        map_filter=chosen.map_filter,
        grids=tuple(torch.from_numpy(grid.cells) for grid in placed.grids),
        with_range=chosen.mode == "official",
        backend=setup.backend,
    )


def _sums(setup: Setup, visual: int, score: Callable[..., LayerScores]) -> LayerSums:
    """What takes the layers of a chunk."""
    chosen, text = setup.settings, None
    if chosen.text_relevance:
        text = TextSums(partial(ops.head_score, head_score=chosen.head_score, backend=setup.backend))
    return LayerSums(visual, score, text)
