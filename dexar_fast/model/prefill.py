"""A prompt that runs into a KV cache: by itself, or with its answer in one forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dexar_fast.errors import ModelError
from dexar_fast.model.cache import (
    goes_back,
    length_of,
    of_whole_forward,
    to_forward,
    to_generate,
    truncate,
    whole_cache,
)
from dexar_fast.model.decoder import Decoder, PromptWatcher
from dexar_fast.model.logits import last_logits, without_logits
from dexar_fast.model.tracer import DecoderTracer
from dexar_fast.stages import stage

TYPES = "mm_token_type_ids"  # 0 is text
KNOWN = {"input_ids", "attention_mask", TYPES}  # how an answer continues them
PLAIN = ("cache_implementation", "prefill_chunk_size")  # settings of generate() that change no answer


@dataclass(frozen=True)
class Prefill:
    """A prompt that has run: its keys, the decoder that made them, and what was seen of its last token.

    If something is pending, the rest of it is still to run, together with its answer.
    """

    cache: Any  # None where the model cannot go back in its own: each chunk of the answer runs with all before it
    decoder: Decoder
    seen: PromptWatcher
    pending: Pending | None = None
    begun: BegunPrompt | None = None
    trail: Trail | None = None  # without a cache: that of the pass's own, if chunks may go on from each other


@dataclass
class Trail:
    """How far the pass has come through a prompt and its answer in a cache of its own, where it goes on, never back."""

    open: bool = False  # whether more of the answer may come than is known
    cache: Any = None
    length: int = 0  # tokens in it

    def leads_to(self, position: int) -> bool:
        """Whether the token at this position is the next to run."""
        return self.cache is not None and self.length == position

    def begin(self, cache: Any, length: int) -> None:
        """Takes a cache of so many tokens; None ends the trail."""
        self.cache, self.length = cache, length


@dataclass(frozen=True)
class BegunPrompt:
    """A prompt as the generate() of a model that reads its image elsewhere has begun it.

    Its keys are numbered: first those that stand beside the decoder's own sequence, then this, image positions first.
    """

    inputs: Mapping[str, Any]  # of a forward of the prompt
    ids: Tensor  # [D] that stand before the answer, on the CPU
    labels: Tensor  # [K] the id of each key; -1 where it has none
    beside: int  # how many of the keys are no positions of the decoder
    visual: Tensor  # [N] numbers of the image's keys

    @property
    def prompt(self) -> int:
        """How many positions of the decoder stand before the answer."""
        return len(self.labels) - self.beside

    @property
    def device(self) -> torch.device:
        """That of the decoder's ids."""
        ids: Tensor = self.inputs.get("decoder_input_ids", self.inputs.get("input_ids"))
        return ids.device

    def numbered(self, content: Tensor | None) -> Tensor | None:
        """The numbers of the keys at some positions of the prompt's ids; an encoder's come first."""
        first = 0 if "decoder_input_ids" in self.inputs else len(self.labels) - len(self.ids)
        return None if content is None else content + first


@dataclass(frozen=True)
class Pending:
    """The part of a prompt that is still to run."""

    inputs: Mapping[str, Any]  # to pass beside the cache
    known: int  # tokens in the cache
    prefix: Prefix


class Prefix:
    """How a prompt begins: here from nothing, in a cache of its own."""

    def __init__(self, config: Any) -> None:
        self._config = config

    def begin(self, inputs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The cache, None where the model cannot go back in its own, and the inputs to pass beside it."""
        return (whole_cache(self._config) if goes_back(self._config) else None), dict(inputs)

    def ran(self, cache: Any) -> None:
        """Called when the prompt has run into the cache."""

    def answered(self, answer: Tensor) -> None:
        """Called with the ids [T] of the whole answer, which runs into the cache behind the prompt."""

    def __enter__(self) -> Prefix:
        return self

    def __exit__(self, *_: Any) -> None:
        """The caches are no longer needed."""


@torch.no_grad()
def prefill(model: Any, inputs: Mapping[str, Any], decoder: Decoder | None, prefix: Prefix) -> Prefill:
    """Runs the part of the prompt that the cache does not hold; finds the decoder on first use."""
    cache, left = prefix.begin(inputs)
    return _alone(model, cache, left, decoder, prefix)


def _alone(model: Any, cache: Any, left: Mapping[str, Any], decoder: Decoder | None, prefix: Prefix) -> Prefill:
    watching = watcher_of(model, left, cache, decoder)
    with watching.watching(), stage("prefill"):
        run(model, cache, left, decoder is None)
    prefix.ran(cache)
    return prefill_of(cache, watching, decoder)


def run(model: Any, cache: Any, left: Mapping[str, Any], with_logits: bool = False, prompt: int | None = None) -> None:
    """One forward over the part of a prompt that the cache does not hold; without one, over its answer, too.

    Args:
        prompt: how many of those tokens are the prompt's; None is all of them.
    """
    logits = last_logits(model) if with_logits else without_logits(model)
    if cache is None:
        model(**left, **of_whole_forward(model, prompt or left["input_ids"].shape[1]), **logits)
    elif cache.get_seq_length() == 0 and not _is_padded(left):
        model(**left, **to_forward(model, cache), use_cache=True, **logits)
    else:  # generate() knows which of the inputs go with the rest of a prompt, and the positions
        model.generate(**left, **one_forward(model), **to_generate(cache))


def _is_padded(inputs: Mapping[str, Any]) -> bool:
    return len(inputs["input_ids"]) > 1 and not bool(inputs["attention_mask"].all())


def one_forward(model: Any) -> dict[str, Any]:
    """generate()'s arguments for exactly one forward, whatever the model's own config asks for (stop strings, say)."""
    own = {name: None for name in model.generation_config.to_diff_dict() if name != "transformers_version"}
    one = dict.fromkeys(("max_new_tokens", "num_beams", "num_return_sequences"), 1)
    ours = {"do_sample": False, "return_dict_in_generate": True, "use_cache": True, **dict.fromkeys(PLAIN)}
    return own | one | ours


def postponed(model: Any, inputs: Mapping[str, Any], decoder: Decoder, prefix: Prefix) -> Prefill:
    """A prompt that will run, as far as the cache does not hold it, in one forward with its answer."""
    cache, left = prefix.begin(inputs)
    pending = Pending(left, length_of(cache), prefix)
    return Prefill(cache, decoder, watcher_of(model, left, cache, decoder), pending)


@torch.no_grad()
def by_itself(model: Any, prompt: Prefill) -> Prefill:
    """Runs a postponed prompt without its answer."""
    assert prompt.pending is not None
    truncate(prompt.cache, prompt.pending.known)
    return _alone(model, prompt.cache, prompt.pending.inputs, prompt.decoder, prompt.pending.prefix)


def with_answer(inputs: Mapping[str, Any], ids: Tensor) -> dict[str, Any]:
    """The inputs of one forward over a prompt and some ids [C] of its answer.

    Raises ModelError for inputs with an entry for each token of which it is not known how they go on.
    """
    unknown = _of_tokens(inputs) - KNOWN
    if unknown and len(ids):
        raise ModelError(f"the inputs hold {' and '.join(sorted(unknown))}: it is not known how an answer continues it")
    added = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None], TYPES: torch.zeros_like(ids)[None]}
    return {
        name: torch.cat([value, added[name].to(value)], 1) if name in added else value for name, value in inputs.items()
    }


def takes_answer(inputs: Mapping[str, Any], decoder: Decoder, visual: Tensor) -> bool:
    """Whether a prompt may run in one forward with its answer.

    No token may read a later one, `with_answer` must know every input with an entry for each token, and an image may
    not come last: M-RoPE gives it several axes, from which generate() counts on one by one, a forward from the largest.
    """
    last = int(visual[-1]) if len(visual) else -1
    return _of_tokens(inputs) <= KNOWN and decoder.causal and last < inputs["input_ids"].shape[1] - 1


def _of_tokens(inputs: Mapping[str, Any]) -> set[str]:
    """The names of the inputs that have an entry for each token of the prompt."""
    shape = inputs["input_ids"].shape
    single = {name for name, value in inputs.items() if isinstance(value, Tensor) and value.shape[:2] == shape}
    return single | ({"position_ids"} & inputs.keys())


def watcher_of(model: Any, inputs: Mapping[str, Any], cache: Any, decoder: Decoder | None) -> PromptWatcher:
    rows, length = inputs["input_ids"].shape
    length -= length_of(cache)
    return DecoderTracer(model, length, inputs) if decoder is None else PromptWatcher(model, length, inputs, rows)


def prefill_of(cache: Any, watching: PromptWatcher, decoder: Decoder | None) -> Prefill:
    found = watching.decoder if isinstance(watching, DecoderTracer) else decoder
    if found is None:  # a forward of the whole model finds it or raises
        raise ModelError(
            f"generate() of {type(watching.model).__name__} does not run the model's own forward, but a part of it or "
            "a way of writing of its own: it is not supported"
        )
    return Prefill(cache, found, watching)
