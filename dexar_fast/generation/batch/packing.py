"""Given answers as segments of one row, each behind its prompt: when, their inputs, and their positions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from dexar_fast.attribution.calls.segments import Segments
from dexar_fast.attribution.tails.trust import Tails
from dexar_fast.generation.batch.joining import IDS, Inputs, in_a_row
from dexar_fast.generation.runner import Runner
from dexar_fast.generation.setup import Setup
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.prefill import takes_answer
from dexar_fast.model.signatures import parameters

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


def row_of(model: Any, whole: Sequence[Inputs]) -> tuple[dict[str, Any], Segments]:
    """The inputs of a row of prompts [1, P] with their answers, each at the positions that it has alone."""
    positions = [_positions(model, each) for each in whole]
    return in_a_row(whole) | {POSITIONS: torch.cat(positions, -1)}, Segments([each[IDS].shape[1] for each in whole])


def _positions(model: Any, inputs: Inputs) -> Tensor:
    """[1, S], or with the axes of M-RoPE in front."""
    found: Tensor = getattr(model, OF_GENERATE)(inputs[IDS], dict(inputs))
    return found


def fitting(lengths: Iterable[int], tokens: int) -> int:
    """How many sequences, from the first on, take no more than so many tokens; one at least."""
    return max(1, sum(total <= tokens for total in accumulate(lengths)))
