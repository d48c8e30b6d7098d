"""The answer that the model's own generate() writes, into a cache that is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from dexar_fast.errors import InputError
from dexar_fast.generation.arguments import (
    asked_for,
    beams,
    check_arguments,
    end_ids,
    new_tokens,
    over,
    owned,
    without_end,
)
from dexar_fast.generation.faults import sampled
from dexar_fast.model.cache import length_of, to_generate
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.elsewhere import begun
from dexar_fast.model.elsewhere.tracer import CallsWatcher
from dexar_fast.model.kinds import writer_of
from dexar_fast.model.lending.session import Loan
from dexar_fast.model.prefill import Prefill, Prefix, prefill, prefill_of, watcher_of
from dexar_fast.stages import stage

Follow = Callable[[int, Prefill], None]
EMPTY = "the model's answer is empty: it ended at once. Ask another question or give response="


class EmptyAnswer(InputError):
    """The model ended its answer at once.

    Attributes:
        end: the id by which it did; None where it is not known.
    """

    def __init__(self, end: int | None = None) -> None:
        super().__init__(EMPTY)
        self.end = end


@torch.no_grad()
def generate(
    model: Any,
    inputs: Mapping[str, Any],
    decoder: Decoder | None,
    prefix: Prefix,
    generate_kwargs: Mapping[str, Any],
    follow: Follow | None = None,
) -> tuple[Tensor, Prefill]:
    """Runs the model's own generate(); returns the ids [T] before the end-of-sequence token, and the prompt it ran.

    Args:
        follow: called with each id of the answer as it is chosen, before it runs, and with the prompt: its cache is
            generate()'s own and must be left as it is.
    Raises:
        EmptyAnswer: the model says nothing. InputError: `check_arguments` refuses an argument.
        NumericalError: NaN or infinity in logits that the answer is to be sampled from.
    """
    check_arguments(model, inputs, generate_kwargs)
    cache, left = prefix.begin(inputs)
    if length_of(cache) > 0:
        cache.batch_repeat_interleave(beams(model, generate_kwargs))
    watching = watcher_of(model, inputs, cache, decoder)
    length = inputs["input_ids"].shape[1]
    limit = new_tokens(model, length, generate_kwargs)
    arguments = arguments_of(model, left, generate_kwargs, limit) | ({} if cache is None else to_generate(cache))
    ends = end_ids(model, generate_kwargs)
    if follow is not None:
        own = generate_kwargs.get("streamer")
        arguments["streamer"] = Tap(own, ends, lambda token: follow(token, prefill_of(cache, watching, decoder)))
    with watching.watching(), sampled(), stage("generation"):
        output = model.generate(**arguments)
    answer = without_end(output.sequences[0, length:], ends)
    if len(answer) == 0:
        raise EmptyAnswer(int(output.sequences[0, length]))
    if beams(model, generate_kwargs) == 1:  # else no row of the cache need be the answer's
        prefix.answered(answer)
    prompt = prefill_of(cache, watching, decoder)
    if cache is None:
        return answer, prompt
    if cache.get_seq_length() < length:  # generate() kept its keys elsewhere
        cache.reset()
        return answer, prefill(model, inputs, prompt.decoder, prefix)
    if cache.layers[0].keys.shape[0] > 1:  # beams: the prompt is in each
        cache.batch_select_indices(torch.zeros(1, dtype=torch.long, device=model.device))
    prefix.ran(cache)
    return answer, prompt


@torch.no_grad()
def written_apart(
    model: Any, inputs: Mapping[str, Any], generate_kwargs: Mapping[str, Any], loan: Loan, along: Any
) -> Tensor | None:
    """The answer [T], written while the model is as its owner has it, to be explained once it is there.

    On a GPU that is faster by far: the owner's cache may be static, the forward compiled. Elsewhere where a cache is
    asked for. None where the answer is written into a cache of ours.

    Args:
        along: whether something needs the answer, or its cache, while it is written.
    Raises:
        InputError: a cache is asked for that such an answer cannot have; and as `generate`.
    """
    asked = asked_for(generate_kwargs, "cache_implementation")
    if asked is not None and along:
        raise InputError(
            f"cache_implementation={asked!r}: an answer is written into a cache of its own where it is streamed, kept "
            "as it is written, or shares a pool; leave it out"
        )
    if along or model.training or (asked is None and model.device.type != "cuda"):
        return None
    check_arguments(model, inputs, generate_kwargs)
    length = inputs["input_ids"].shape[1]
    limit = {"max_new_tokens": new_tokens(model, length, generate_kwargs), "max_length": None}
    with loan.paused(), sampled(), stage("generation"):
        output = model.generate(**dict(inputs) | dict(generate_kwargs) | owned(generate_kwargs, limit))
    ids = output if isinstance(output, Tensor) else output.sequences
    answer = without_end(ids[0, length:], end_ids(model, generate_kwargs))
    if len(answer) == 0:
        raise EmptyAnswer(int(ids[0, length]))
    return answer


def arguments_of(model: Any, inputs: Mapping[str, Any], generate_kwargs: Mapping[str, Any], new: int) -> dict[str, Any]:
    """What generate() is called with to write so many tokens at most."""
    return (
        dict(inputs) | dict(generate_kwargs) | over(model, generate_kwargs, {"max_new_tokens": new, "max_length": None})
    )


@torch.no_grad()
def generate_begun(
    model: Any,
    inputs: Mapping[str, Any],
    decoder: Decoder | None,
    generate_kwargs: Mapping[str, Any],
    follow: Follow | None = None,
) -> tuple[Tensor, Prefill]:
    """The same for a model that reads its image elsewhere: its generate() begins as it likes, in a cache of its own."""
    writer, first = writer_of(model), First()
    check_arguments(writer, inputs, generate_kwargs)
    decoder = decoder or begun.find(model, inputs)
    watching = CallsWatcher(model, inputs, decoder)
    limit = {"max_new_tokens": begun_tokens(model, inputs, generate_kwargs), "max_length": None}
    arguments = begun.copied(inputs) | dict(generate_kwargs) | over(writer, generate_kwargs, limit)
    arguments["logits_processor"] = LogitsProcessorList([first, *(generate_kwargs.get("logits_processor") or [])])
    ends = end_ids(writer, generate_kwargs) | begun.separators(model)
    prompt = cache(lambda: begun.begun_prefill(model, inputs, first.ids, decoder, watching))
    if follow is not None:
        own = generate_kwargs.get("streamer")
        arguments["streamer"] = Tap(own, ends, lambda token: follow(token, prompt()))
    with watching.watching(), sampled(), stage("generation"):
        output = model.generate(**arguments)
    answer = without_end(output.sequences[0, len(first.ids) :], ends)
    if len(answer) == 0:
        raise EmptyAnswer(int(output.sequences[0, len(first.ids)]))
    return answer, prompt()


def begun_tokens(model: Any, inputs: Mapping[str, Any], generate_kwargs: Mapping[str, Any]) -> int:
    """The most tokens that it writes. Raises InputError as `new_tokens` does."""
    return new_tokens(writer_of(model), begun.length_of(model, inputs), generate_kwargs)


class First(LogitsProcessor):
    """Keeps the ids that stand before an answer, as generate() has them."""

    ids: Tensor  # [D]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not hasattr(self, "ids"):
            self.ids = input_ids[0].clone()
        return scores


class Tap:
    """The streamer of generate(): hands ids on to the user's own, and shows each id before the end."""

    def __init__(self, own: Any, ends: set[int], show: Callable[[int], None]) -> None:
        self._own = own
        self._ends = ends
        self._show = show
        self._begun = self._ended = False

    def put(self, ids: Tensor) -> None:
        """The prompt's ids first, then those chosen since."""
        if self._own is not None:
            self._own.put(ids)
        for token in ids.flatten().tolist() if self._begun else []:
            self._ended = self._ended or token in self._ends
            if not self._ended:
                self._show(token)
        self._begun = True

    def end(self) -> None:
        if self._own is not None:
            self._own.end()
