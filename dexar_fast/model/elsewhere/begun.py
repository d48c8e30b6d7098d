"""How generate() begins with a prompt: the ids that stand before the answer, and the inputs of one forward over both.

Encoder-decoders begin with an id of their own, BLIP drops the prompt's last one. So generate() itself writes a token, and
what it puts before that is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.errors import InputError, ModelError
from dexar_fast.model.attention import Side
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.elsewhere.tracer import CallsTracer, CallsWatcher, Read, sides
from dexar_fast.model.kinds import encodes, writer_of
from dexar_fast.model.logits import last_logits
from dexar_fast.model.prefill import Begun, Prefill
from dexar_fast.stages import stage
from dexar_fast.vision.geometry import names_image_token, visual_token_ids

IDS, DECODER_IDS, MASK = "input_ids", "decoder_input_ids", "attention_mask"
NO_IDS = torch.zeros(0, dtype=torch.long, device="cpu")
ALONE = 1  # token of an answer


@torch.no_grad()
def begin(model: Any, inputs: Mapping[str, Any], decoder: Decoder | None) -> Prefill:
    """Runs a prompt alone; finds the decoder on first use."""
    with stage("prefill"):
        if decoder is None:
            decoder = find(model, inputs)
        watching = CallsWatcher(model, inputs, decoder)
        with watching.watching():
            written = first_tokens(model, inputs, ALONE).sequences[0]
    return begun_prefill(model, inputs, written[:-ALONE], decoder, watching)


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


def _traced(model: Any, inputs: Mapping[str, Any]) -> CallsTracer:
    tracing = CallsTracer(model, inputs)
    with tracing.watching():
        model(**copied(inputs), use_cache=False, **last_logits(model))
    return tracing


def begun_prefill(model: Any, inputs: Mapping[str, Any], ids: Tensor, decoder: Decoder, seen: CallsWatcher) -> Prefill:
    """A prompt that generate() has begun with ids [D]."""
    begun = _inputs(model, inputs, ids)
    return Prefill(None, decoder, seen, begun=_keys(model, begun, ids.cpu(), decoder, seen.reads))


def _inputs(model: Any, inputs: Mapping[str, Any], ids: Tensor) -> dict[str, Any]:
    """The inputs of a forward of the prompt that generate() has begun with ids [D]."""
    if encodes(model):
        return {**inputs, DECODER_IDS: ids[None]}
    given = inputs.get(IDS)
    if given is not None and (len(ids) == 0 or torch.equal(given[0], ids)):
        return dict(inputs)
    mask = {MASK: torch.ones_like(ids)[None]} if MASK in inputs else {}
    return {**inputs, IDS: ids[None], **mask}


def with_answer(begun: Mapping[str, Any], answer: Tensor) -> dict[str, Any]:
    """The inputs of one forward over a begun prompt and some ids [C] of its answer.

    What an input of the prompt's tokens says of the answer: it is read, it is no image, and it sees what the prompt's
    last token sees.
    """
    if DECODER_IDS in begun:
        mask = "decoder_attention_mask"
        own = {name: begun[name] for name in (DECODER_IDS, mask) if name in begun}
    else:
        own = {name: each for name, each in begun.items() if _is_of_tokens(name, each, begun)}
    return {**begun, **{name: torch.cat([each, _more(name, each, answer)], 1) for name, each in own.items()}}


def _is_of_tokens(name: str, value: Any, begun: Mapping[str, Any]) -> bool:
    """Whether an input has an entry for each token of the prompt: pixels have none, nor have another sequence's ids."""
    others = [each.removesuffix(IDS) for each in begun if each.endswith(IDS) and each != IDS]
    if not isinstance(value, Tensor) or value.is_floating_point() or any(name.startswith(each) for each in others):
        return False
    return value.shape[:2] == begun[IDS].shape


def _more(name: str, value: Tensor, answer: Tensor) -> Tensor:
    if name in (IDS, DECODER_IDS):
        return answer[None]
    if value.ndim > 2:
        return value[:, -1:].expand(-1, len(answer), *value.shape[2:])
    return torch.full_like(answer, int(name.endswith(MASK)))[None].to(value)


def _keys(
    model: Any, begun: Mapping[str, Any], ids: Tensor, decoder: Decoder, reads: Mapping[nn.Module, Read]
) -> Begun:
    """Where the prompt's keys come from: of the decoder's own sequence, or of that beside it."""
    by_side = {side: reads[each] for each, side in _calls(decoder)}
    if len({reads[each].keys for each, side in _calls(decoder) if side is Side.BESIDE}) > 1:
        raise ModelError(f"the layers of {type(model).__name__} read several other sequences: it is not supported")
    own = by_side[Side.OWN].keys if Side.OWN in by_side else len(ids)
    ids = begun[IDS][0].cpu() if len(ids) == 0 else ids
    ahead = torch.full((own - len(ids),), -1)
    beside = _beside(model, begun, by_side, own)
    labels = torch.cat([beside[0], ahead, ids])
    if len(beside[0]):
        visual = beside[1].nonzero()[:, 0]
    else:
        visual = _of_own(model, begun, ids, len(ahead))
    if len(visual) == 0:
        raise InputError("the prompt holds no image token: pass an image, or put the model's image token in the prompt")
    return Begun(begun, ids, labels, len(beside[0]), visual)


def _calls(decoder: Decoder) -> list[tuple[nn.Module, Side]]:
    assert decoder.sides is not None
    return list(zip(decoder.attentions, decoder.sides, strict=True))


def _beside(model: Any, begun: Mapping[str, Any], reads: Mapping[Side, Read], own: int) -> tuple[Tensor, Tensor]:
    """The ids [E] of the keys beside the decoder's, and which of them [E] come from the image.

    Those of an encoder are its ids', and, behind these, the image's; all others are the image's. Keys that no position
    may read are padding.
    """
    if Side.BOTH in reads:
        whole = reads[Side.BOTH]
        found = Read(whole.keys - own, whole.open[own:])
    elif Side.BESIDE in reads:
        found = reads[Side.BESIDE]
    else:
        return NO_IDS, NO_IDS
    text = begun[IDS][0].cpu() if IDS in begun and encodes(model) else NO_IDS
    if len(text) > found.keys:
        raise ModelError(f"{type(model).__name__} encodes {len(text)} ids as {found.keys} states: it is not supported")
    labels = torch.cat([text, torch.full((found.keys - len(text),), -1)])
    marked = torch.isin(labels, torch.tensor([-1, *_image_ids(model)]))
    return labels, marked & found.open


def _of_own(model: Any, begun: Mapping[str, Any], ids: Tensor, ahead: int) -> Tensor:
    """The image's positions in the decoder's own sequence: before the ids, those of its id, or those that a mask marks."""
    if ahead:
        return torch.arange(ahead)
    marks = [
        each[0].cpu() == 1 for name, each in begun.items() if name.startswith("image") and each.shape[1:] == ids.shape
    ]
    if names_image_token(model.config):
        return torch.isin(ids, torch.tensor(_image_ids(model))).nonzero()[:, 0]
    if len(marks) == 1:
        return marks[0].nonzero()[:, 0]
    raise ModelError(
        f"{type(model).__name__} names no image token, and neither its attention nor its inputs say which keys come from "
        "the image: it is not supported"
    )


def _image_ids(model: Any) -> list[int]:
    return visual_token_ids(model.config) if names_image_token(model.config) else []
