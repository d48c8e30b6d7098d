"""How generate() begins with a prompt: the ids that stand before the answer, and the inputs of one forward over both.

Encoder-decoders begin with an id of their own, BLIP drops the prompt's last one. So generate() itself writes a token,
and what it puts before that is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dexar_fast.model.agreement import ROUNDINGS_OF_OTHERS, relative_difference
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.elsewhere.image_keys import NO_IDS, begun_of
from dexar_fast.model.elsewhere.tracer import Begun, CallsTracer, CallsWatcher, sides
from dexar_fast.model.kinds import DECODER_IDS, IDS, encodes, writer_of
from dexar_fast.model.logits import last_logits
from dexar_fast.model.memory import is_out_of_memory
from dexar_fast.model.modules import parameters
from dexar_fast.model.prefill import BegunPrompt, Prefill
from dexar_fast.stages import stage

MASK, ENCODED = "attention_mask", "encoder_outputs"
ALONE = 1  # token of an answer


@torch.no_grad()
def begin(model: Any, inputs: Mapping[str, Any], decoder: Decoder | None) -> Prefill:
    """Begins with a prompt alone; finds the decoder on first use."""
    with stage("prefill"):
        if decoder is None:
            decoder = find(model, inputs)
        if decoder.begins:
            return _first_layers(model, inputs, decoder)
        watching = CallsWatcher(model, inputs, decoder)
        with watching.watching():
            written = first_tokens(model, inputs, ALONE).sequences[0]
        found = begun_prefill(model, inputs, written[:-ALONE], decoder, watching)
        if decoder.begins is None and found.begun is not None:
            early = _first_layers(model, inputs, decoder).begun
            decoder.begins = early is not None and _begin_alike(model, found.begun, early)
        return found


def _first_layers(model: Any, inputs: Mapping[str, Any], decoder: Decoder) -> Prefill:
    """The same, of a generate() that ends in its first step, once the layers have shown what they read."""
    watching, step = CallsWatcher(model, inputs, decoder, stops=True), {}
    hook = writer_of(model).register_forward_pre_hook(lambda _, args, given: step.update(given), with_kwargs=True)
    try:
        with watching.watching(), suppress(Begun):
            first_tokens(model, inputs, ALONE)
    finally:
        hook.remove()
    ids = step.get(DECODER_IDS if encodes(model) else IDS)
    found = begun_prefill(model, inputs, NO_IDS if ids is None else ids[0], decoder, watching)
    return _encoded(found, step) if ENCODED in step and ENCODED in parameters(type(model).forward) else found


def _encoded(prompt: Prefill, step: Mapping[str, Any]) -> Prefill:
    """The prompt with what its encoder gave, which no forward of it then runs again."""
    assert prompt.begun is not None
    passed = {name: step[name] for name in prompt.begun.inputs if step.get(name) is not None}
    inputs = {**passed, DECODER_IDS: prompt.begun.inputs[DECODER_IDS], ENCODED: step[ENCODED]}
    return replace(prompt, begun=replace(prompt.begun, inputs=inputs))


def _begin_alike(model: Any, one: BegunPrompt, other: BegunPrompt) -> bool:
    """Whether two beginnings are the same, and so are forwards of them."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("ids", "labels", "visual")]
    if not all(torch.equal(*pair) for pair in pairs):
        return False
    if ENCODED not in other.inputs:
        return True
    try:
        first, second = (_last_logits(model, each) for each in (one, other))
    except Exception as error:  # models raise any kind
        if is_out_of_memory(error):
            raise
        return False
    return relative_difference(first, second) <= ROUNDINGS_OF_OTHERS * torch.finfo(first.dtype).eps


def _last_logits(model: Any, begun: BegunPrompt) -> Tensor:
    logits: Tensor = model(**copied(begun.inputs), use_cache=False, **last_logits(model)).logits[0, -1]
    return logits


def first_tokens(model: Any, inputs: Mapping[str, Any], count: int, **more: Any) -> Any:
    """What generate() gives for the first tokens of an answer, whatever the model's own config asks for."""
    writer = writer_of(model)
    own = {name: None for name in writer.generation_config.to_diff_dict() if _is_a_knob(name)}
    ours = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1, "return_dict_in_generate": True}
    length = {"max_new_tokens": count, "min_new_tokens": count, "max_length": None, "use_cache": True}
    return model.generate(**copied(inputs), **(own | ours | length | more))


def _is_a_knob(name: str) -> bool:
    """Whether it is no id that an answer begins or ends with."""
    return not name.endswith("_token_id") and name != "transformers_version"


def length_of(model: Any, inputs: Mapping[str, Any]) -> int:
    """About how many ids stand before an answer."""
    given = inputs.get(DECODER_IDS if encodes(model) else IDS)
    return 1 if given is None else int(given.shape[1])


def separators(model: Any) -> set[int]:
    """The ids that may end an answer where a generate() of the model's own says so: BERT's separator (BLIP)."""
    writer = writer_of(model)
    separator = None if writer is model else getattr(writer.config, "sep_token_id", None)
    return set() if separator is None else {separator}


def copied(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, for a generate() that may write into its ids (BLIP)."""
    return {name: value.clone() if name == IDS else value for name, value in inputs.items()}


def find(model: Any, inputs: Mapping[str, Any]) -> Decoder:
    """The decoder, by forwards of a prompt and of one token more. Raises ModelError."""
    written = first_tokens(model, inputs, ALONE).sequences[0]
    begun = _inputs(model, inputs, written[:-ALONE])
    short, long = (_traced(model, with_answer(begun, ids)) for ids in (written[:0], written[-ALONE:]))
    assert short.decoder is not None and long.decoder is not None  # or the forward raised
    long.decoder.sides = sides(long.decoder, short, long)
    return long.decoder


def traced(model: Any, begun: BegunPrompt) -> Decoder:
    """The decoder's modules and lens, by one more forward of a prompt. Raises ModelError."""
    found = _traced(model, begun.inputs).decoder
    assert found is not None  # or the forward raised
    return found


def _traced(model: Any, inputs: Mapping[str, Any]) -> CallsTracer:
    tracing = CallsTracer(model, inputs)
    with tracing.watching():
        model(**copied(inputs), use_cache=False, **last_logits(model))
    return tracing


def begun_prefill(model: Any, inputs: Mapping[str, Any], ids: Tensor, decoder: Decoder, seen: CallsWatcher) -> Prefill:
    """A prompt that generate() has begun with ids [D]."""
    return Prefill(None, decoder, seen, begun=begun_of(model, _inputs(model, inputs, ids), decoder, seen.reads))


def _inputs(model: Any, inputs: Mapping[str, Any], ids: Tensor) -> dict[str, Any]:
    """The inputs of a forward of the prompt that generate() has begun with ids [D]."""
    if encodes(model):
        rest = {name: value for name, value in inputs.items() if name != f"decoder_{MASK}"}  # nothing is padded
        return rest | {DECODER_IDS: ids[None]}
    given = inputs.get(IDS)
    if given is not None and (len(ids) == 0 or torch.equal(given[0], ids)):  # some give the answer alone
        return dict(inputs)
    mask = {MASK: torch.ones_like(ids)[None]} if MASK in inputs else {}
    return {**inputs, IDS: ids[None], **mask}


def with_answer(begun: Mapping[str, Any], answer: Tensor) -> dict[str, Any]:
    """The inputs of one forward over a begun prompt and some ids [C] of its answer.

    What an input of the prompt's tokens says of the answer: it is read, it is no image, and it sees what the prompt's
    last token sees.
    """
    own = {DECODER_IDS: begun[DECODER_IDS]} if DECODER_IDS in begun else _of_tokens(begun)
    return {**begun, **{name: torch.cat([each, _more(name, each, answer)], 1) for name, each in own.items()}}


def _of_tokens(begun: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inputs with an entry for each token of the prompt: pixels have none, nor have another sequence's ids."""
    others = tuple(each.removesuffix(IDS) for each in begun if each.endswith(IDS) and each != IDS)
    whole = {name: each for name, each in begun.items() if isinstance(each, Tensor) and not each.is_floating_point()}
    shape = begun[IDS].shape
    return {name: each for name, each in whole.items() if each.shape[:2] == shape and not name.startswith(others)}


def _more(name: str, value: Tensor, answer: Tensor) -> Tensor:
    if name in (IDS, DECODER_IDS):
        return answer[None]
    if value.ndim > 2:
        return value[:, -1:].expand(-1, len(answer), *value.shape[2:])
    return torch.full_like(answer, int(name.endswith(MASK)))[None].to(value)
