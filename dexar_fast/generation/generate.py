"""The prompt and the answer: one prefill into a KV cache, by our forward or by the model's own generate()."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dexar_fast.attribution.tail import Tails
from dexar_fast.errors import InputError, ModelError
from dexar_fast.generation.arguments import beams, check_arguments, end_ids, new_tokens, one_forward, over, without_end
from dexar_fast.generation.faults import sampled
from dexar_fast.model.cache import to_forward, to_generate, truncate, whole_cache
from dexar_fast.model.decoder import Decoder, DecoderTracer, PromptWatcher
from dexar_fast.model.logits import last_logits, without_logits
from dexar_fast.stages import stage

TYPES = "mm_token_type_ids"  # 0 is text


@dataclass(frozen=True)
class Prompt:
    """A prompt that has run: its keys, the decoder that made them, and what was seen of its last token.

    Or one of which the rest is still to run, together with its answer.
    """

    cache: Any
    decoder: Decoder
    seen: PromptWatcher
    rest: Rest | None = None


@dataclass(frozen=True)
class Rest:
    """What is still to run of a prompt."""

    inputs: Mapping[str, Any]  # to pass beside the cache
    known: int  # tokens in the cache
    start: Start
    tails: Tails  # of the forward that it runs in


Follow = Callable[[int, Prompt], None]


class Start:
    """How a prompt begins: here each by itself, in a cache of its own."""

    def __init__(self, config: Any) -> None:
        self._config = config

    def begin(self, inputs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The cache, and the inputs to pass beside it. Raises ModelError as `whole_cache` does."""
        return whole_cache(self._config), dict(inputs)

    def ran(self, cache: Any) -> None:
        """The prompt has run into the cache."""

    def __enter__(self) -> Start:
        return self

    def __exit__(self, *_: Any) -> None:
        """The caches are no longer needed."""


@torch.no_grad()
def prefill(model: Any, inputs: Mapping[str, Any], decoder: Decoder | None, start: Start) -> Prompt:
    """Runs what the cache does not hold of the prompt; finds the decoder on first use."""
    cache, left = start.begin(inputs)
    return _alone(model, cache, left, decoder, start)


def _alone(model: Any, cache: Any, left: Mapping[str, Any], decoder: Decoder | None, start: Start) -> Prompt:
    watching = _watcher(model, left, cache, decoder)
    with watching.watching(), stage("prefill"):
        run(model, cache, left, decoder is None)
    start.ran(cache)
    return _prompt(cache, watching, decoder)


def run(model: Any, cache: Any, left: Mapping[str, Any], with_logits: bool = False) -> None:
    """One forward over what the cache does not hold of a prompt."""
    if cache.get_seq_length() == 0:
        logits = last_logits(model) if with_logits else without_logits(model)
        model(**left, **to_forward(model, cache), use_cache=True, **logits)
    else:  # generate() knows which of the inputs and positions go with the rest of a prompt
        model.generate(**left, **one_forward(model), **to_generate(cache))


def postponed(model: Any, inputs: Mapping[str, Any], decoder: Decoder, start: Start, tails: Tails) -> Prompt:
    """A prompt that runs in one forward with its answer, as far as the cache does not hold it."""
    cache, left = start.begin(inputs)
    rest = Rest(left, cache.get_seq_length(), start, tails)
    return Prompt(cache, decoder, _watcher(model, left, cache, decoder), rest)


@torch.no_grad()
def by_itself(model: Any, prompt: Prompt) -> Prompt:
    """Runs a postponed prompt without its answer."""
    assert prompt.rest is not None
    truncate(prompt.cache, prompt.rest.known)
    return _alone(model, prompt.cache, prompt.rest.inputs, prompt.decoder, prompt.rest.start)


def with_answer(inputs: Mapping[str, Any], ids: Tensor) -> dict[str, Any]:
    """The inputs of one forward over a prompt and some ids [C] of its answer."""
    added = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None], TYPES: torch.zeros_like(ids)[None]}
    return {
        name: torch.cat([value, added[name].to(value)], 1) if name in added else value for name, value in inputs.items()
    }


def takes_answer(inputs: Mapping[str, Any], decoder: Decoder, visual: Tensor) -> bool:
    """Whether a prompt may run in one forward with its answer: each token reads none behind it, and goes on in steps.

    And whether `with_answer` knows all that the inputs say of single tokens. Positions of an image at the end have
    several axes in M-RoPE, from which generate() goes on one by one, and a forward from the largest.
    """
    shape = inputs["input_ids"].shape
    single = {name for name, value in inputs.items() if isinstance(value, Tensor) and value.shape[:2] == shape}
    known = single <= {"input_ids", "attention_mask", TYPES} and "position_ids" not in inputs
    return known and decoder.causal and int(visual[-1]) < shape[1] - 1


@torch.no_grad()
def generate(
    model: Any,
    inputs: Mapping[str, Any],
    decoder: Decoder | None,
    start: Start,
    generate_kwargs: Mapping[str, Any],
    follow: Follow | None = None,
) -> tuple[Tensor, Prompt]:
    """The model's own generate(): the ids [T] without their end-of-sequence token, and the prompt it ran.

    Args:
        follow: called with each id of the answer as it is chosen, before it runs, and with the prompt: its cache is
            generate()'s own and must be left as it is.
    Raises:
        InputError: the answer is empty, or an argument is none of generate()'s.
        NumericalError: NaN or infinity in the logits, and the answer is to be sampled from them.
    """
    check_arguments(model, inputs, generate_kwargs)
    cache, left = start.begin(inputs)
    known = cache.get_seq_length()
    if known > 0:
        cache.batch_repeat_interleave(beams(model, generate_kwargs))
    watching = _watcher(model, inputs, cache, decoder)
    length = inputs["input_ids"].shape[1]
    limit = {"max_new_tokens": new_tokens(model, length, generate_kwargs), "max_length": None}
    arguments = left | dict(generate_kwargs) | over(model, generate_kwargs, limit) | to_generate(cache)
    ends = end_ids(model, generate_kwargs)
    if follow is not None:
        own = generate_kwargs.get("streamer")
        arguments["streamer"] = Tap(own, ends, lambda token: follow(token, _prompt(cache, watching, decoder)))
    with watching.watching(), sampled(), stage("generation"):
        output = model.generate(**arguments)
    answer = without_end(output.sequences[0, length:], ends)
    if len(answer) == 0:
        raise InputError("the model's answer is empty: it ended at once. Ask another question or give response=")
    prompt = _prompt(cache, watching, decoder)
    if cache.get_seq_length() < length:  # generate() kept its keys elsewhere
        cache.reset()
        return answer, prefill(model, inputs, prompt.decoder, start)
    if cache.layers[0].keys.shape[0] > 1:  # beams: the prompt is in each
        cache.batch_select_indices(torch.zeros(1, dtype=torch.long, device=model.device))
    start.ran(cache)
    return answer, prompt


class Tap:
    """What generate() streams to: hands on to the user's own streamer, and shows each id before the end."""

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


def _watcher(model: Any, inputs: Mapping[str, Any], cache: Any, decoder: Decoder | None) -> PromptWatcher:
    length = inputs["input_ids"].shape[1] - cache.get_seq_length()
    return DecoderTracer(model, length, inputs) if decoder is None else PromptWatcher(model, length, inputs)


def _prompt(cache: Any, watching: PromptWatcher, decoder: Decoder | None) -> Prompt:
    found = watching.decoder if isinstance(watching, DecoderTracer) else decoder
    if found is None:  # a forward of the whole model finds it or raises
        raise ModelError(
            f"generate() of {type(watching.model).__name__} does not run the model's own forward, but a part of it or "
            "a way of writing of its own: it is not supported"
        )
    return Prompt(cache, found, watching)
