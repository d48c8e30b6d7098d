"""The answers that the model's own generate() writes to a batch of prompts, into one cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dexar_fast.generation.arguments import beams, check_arguments, end_ids, setting, without_end
from dexar_fast.generation.faults import CALLBACKS, sampled
from dexar_fast.generation.generate import arguments_of
from dexar_fast.model.attention import watcher
from dexar_fast.model.cache import roomy_cache, to_generate, whole_cache
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.prefill import Prefill, prefill_of, run, watcher_of
from dexar_fast.stages import stage

# Settings that count the padding, or end an answer where its ids do not tell
SINGLE = (
    "min_length", "forced_eos_token_id", "stop_strings", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
)  # fmt: skip


def goes_in_batches(model: Any, generate_kwargs: Mapping[str, Any]) -> bool:
    """Whether no argument of generate() is made for one answer alone: beams, code of the user's, SINGLE."""
    single = [name for name in CALLBACKS if generate_kwargs.get(name) is not None]
    single += [name for name in SINGLE if setting(model, generate_kwargs, name)]
    return not single and beams(model, generate_kwargs) == 1


@torch.no_grad()
def write(
    model: Any, inputs: Mapping[str, Any], decoder: Decoder, limits: Sequence[int], generate_kwargs: Mapping[str, Any]
) -> tuple[list[Tensor], Prefill]:
    """Runs generate(); returns each answer's ids [T] before its end-of-sequence token, perhaps none, and the prompts.

    Args:
        inputs: of the batch. limits: how many tokens each answer has at most.
    Raises:
        InputError: `check_arguments` refuses an argument.
    """
    check_arguments(model, inputs, generate_kwargs)
    length = inputs["input_ids"].shape[1]
    cache = roomy_cache(model.config, length + max(limits))
    watching = watcher_of(model, inputs, cache, decoder)
    arguments = arguments_of(model, inputs, generate_kwargs, max(limits)) | to_generate(cache)
    with watching.watching(), sampled(), stage("generation"):
        output = model.generate(**arguments)
    ends = end_ids(model, generate_kwargs)
    said = [without_end(row[:limit], ends) for row, limit in zip(output.sequences[:, length:], limits, strict=True)]
    return said, prefill_of(cache, watching, decoder)


@torch.no_grad()
def run_prompts(model: Any, inputs: Mapping[str, Any], decoder: Decoder) -> Prefill:
    """Runs the prompts of a batch, with the logits of their last tokens."""
    cache = whole_cache(model.config)
    watching = watcher_of(model, inputs, cache, decoder)
    with watching.watching(), stage("prefill"):
        run(model, cache, inputs, with_logits=True)
    return prefill_of(cache, watching, decoder)


@contextmanager
def first_logits(model: Any, row: int) -> Iterator[list[Tensor]]:
    """Inside the block keeps one row's logits [V] of the first forward's last token."""
    found: list[Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        if not found and watcher.get() is not None:
            found.append(output.logits[row, -1].detach())

    hook = model.register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()
