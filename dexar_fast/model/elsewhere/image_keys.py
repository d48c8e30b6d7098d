"""Which of a prompt's keys come from the image, where its ids do not say so: by the calls that read them.

An encoder's keys are those of its ids and, behind them, of the image. Those of any other sequence beside the decoder's
are the image's. In the decoder's own they stand before the ids, under the image's id, or where an input marks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.errors import InputError, ModelError
from dexar_fast.model.attention import Side
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.elsewhere.tracer import Read
from dexar_fast.model.kinds import DECODER_IDS, IDS
from dexar_fast.model.prefill import BegunPrompt
from dexar_fast.vision.geometry import names_image_token, visual_token_ids

NO_ID = -1
NO_IDS = torch.zeros(0, dtype=torch.long, device="cpu")


def begun_of(model: Any, inputs: Mapping[str, Any], decoder: Decoder, reads: Mapping[nn.Module, Read]) -> BegunPrompt:
    """A prompt that has run, by the inputs of a forward of it and by what each call read.

    Raises:
        ModelError: it cannot be told which keys are the image's. InputError: none are.
    """
    ids = inputs[DECODER_IDS if DECODER_IDS in inputs else IDS][0].cpu()
    by_side = _by_side(model, decoder, reads)
    own = by_side[Side.OWN].keys if Side.OWN in by_side else len(ids)
    ahead = own - len(ids)
    others, of_image = _beside(model, inputs, by_side, own)
    visual = of_image.nonzero()[:, 0] if len(others) else _of_own(model, inputs, ids, ahead)
    if len(visual) == 0:
        raise InputError("the prompt holds no image token: pass an image, or put the model's image token in the prompt")
    return BegunPrompt(inputs, ids, torch.cat([others, _without_id(ahead), ids]), len(others), visual)


def _by_side(model: Any, decoder: Decoder, reads: Mapping[nn.Module, Read]) -> dict[Side, Read]:
    """What the calls of each side read, those that ran."""
    assert decoder.sides is not None  # it was found by its calls
    found: dict[Side, Read] = {}
    sides = zip(decoder.attentions, decoder.sides, strict=True)
    for attention, side in ((attention, side) for attention, side in sides if attention in reads):
        read = found.setdefault(side, reads[attention])
        if read.keys != reads[attention].keys:
            raise ModelError(f"the layers of {type(model).__name__} read several other sequences: it is not supported")
    return found


def _beside(model: Any, inputs: Mapping[str, Any], reads: Mapping[Side, Read], own: int) -> tuple[Tensor, Tensor]:
    """The ids [E] of the keys beside the decoder's own, and which of them [E] are the image's.

    Keys that no position may read are padding.
    """
    if Side.BOTH in reads:
        count, may_be_read = reads[Side.BOTH].keys - own, reads[Side.BOTH].open[own:]
    elif Side.BESIDE in reads:
        count, may_be_read = reads[Side.BESIDE].keys, reads[Side.BESIDE].open
    else:
        return NO_IDS, NO_IDS
    text = inputs[IDS][0].cpu() if IDS in inputs and DECODER_IDS in inputs else NO_IDS
    if len(text) > count:
        raise ModelError(f"{type(model).__name__} encodes {len(text)} ids as {count} states: it is not supported")
    labels = torch.cat([text, _without_id(count - len(text))])
    return labels, ((labels == NO_ID) | _is_image(model, labels)) & may_be_read


def _of_own(model: Any, inputs: Mapping[str, Any], ids: Tensor, ahead: int) -> Tensor:
    """The positions of the image in the decoder's own sequence, of `ahead` positions and those of ids [D]."""
    if ahead:
        return torch.arange(ahead, device="cpu")
    if names_image_token(model.config):
        return _is_image(model, ids).nonzero()[:, 0]
    marks = [value for name, value in inputs.items() if name.startswith("image") and value.shape[1:] == ids.shape]
    if len(marks) == 1:
        return (marks[0][0] == 1).nonzero()[:, 0].cpu()
    raise ModelError(
        f"{type(model).__name__} names no image token, and neither its attention nor its inputs say which keys are the "
        "image's: it is not supported"
    )


def _is_image(model: Any, ids: Tensor) -> Tensor:
    named = visual_token_ids(model.config) if names_image_token(model.config) else []
    return torch.isin(ids, torch.tensor(named, dtype=torch.long, device="cpu"))


def _without_id(count: int) -> Tensor:
    return torch.full((count,), NO_ID, device="cpu")
