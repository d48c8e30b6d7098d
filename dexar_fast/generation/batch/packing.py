"""Given answers as segments of one row, each behind its prompt: when, their inputs, and their positions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from dexar_fast.attribution.calls.segments import Segments
from dexar_fast.attribution.tails.trust import Tails
from dexar_fast.generation.batch.joining import IDS, Inputs, in_a_row
from dexar_fast.generation.runner import Runner
from dexar_fast.generation.setup import Setup
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.modules import parameters
from dexar_fast.model.prefill import takes_answer
from dexar_fast.prompt.inputs import SEQUENCES

POSITIONS = "position_ids"
OF_GENERATE = "_prepare_position_ids_for_generation"  # generate()'s own, which families with M-RoPE override
NOT_PACKED = "not packed with other requests: {}"


def may_pack(model: Any) -> bool:
    """Whether a model takes positions, and tells those of a sequence."""
    return POSITIONS in parameters(model.forward) and hasattr(model, OF_GENERATE)


def goes_packed(runner: Runner, tails: Tails, count: int) -> bool:
    """Whether a given answer may run in one row with others, by what is known of its prompt and the model's layers.

    Args:
        count: of all answers' tokens.
    """
    decoder, request = runner.setup.decoder, runner.request
    if decoder is None or request.targets is None or count > runner.chunk or not tails.trusts_all():
        return False
    return may_pack(runner.setup.model) and takes_answer(request.inputs, decoder, runner.placed.positions)


def tails_of(setup: Setup, decoder: Decoder) -> Tails:
    """The tails of the layers that are explained."""
    return Tails.of(decoder, setup.settings.layers_of(len(decoder.layers)), setup.backend)


def row_of(model: Any, whole: Sequence[Inputs], caches: Sequence[Cache]) -> tuple[dict[str, Any], Segments]:
    """The inputs of a row of prompts [1, P] with their answers, each at the positions that it has alone.

    Args:
        caches: of each, what has run of it, pictures included; none where all of them run whole.
    """
    known = [cache.get_seq_length() for cache in caches] or [0] * len(whole)
    positions = [_positions(model, each)[..., first:] for each, first in zip(whole, known, strict=True)]
    left = [_behind(each, first) for each, first in zip(whole, known, strict=True)]
    segments = Segments([each[IDS].shape[1] for each in left], caches)
    return in_a_row(left) | {POSITIONS: torch.cat(positions, -1)}, segments


def _behind(inputs: Inputs, first: int) -> Inputs:
    """The inputs from a token on that no picture stands behind; all of them from the first."""
    if first == 0:
        return inputs
    tensors = {name: value[:, first:] for name, value in inputs.items() if name in SEQUENCES}
    return tensors | {name: value for name, value in inputs.items() if not isinstance(value, Tensor)}


def _positions(model: Any, inputs: Inputs) -> Tensor:
    """[1, S], or with the axes of M-RoPE in front."""
    found: Tensor = getattr(model, OF_GENERATE)(inputs[IDS], dict(inputs))
    return found


def fitting(lengths: Iterable[int], tokens: int) -> int:
    """How many sequences, from the first on, take no more than so many tokens; one at least."""
    return max(1, sum(total <= tokens for total in accumulate(lengths)))
