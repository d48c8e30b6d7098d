"""Prompts and answers that a data set stores as ids, as requests: their words are cut as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from PIL import Image

from dexar_fast.data.item import Item
from dexar_fast.errors import InputError
from dexar_fast.prompt.request import Request

if TYPE_CHECKING:
    from dexar_fast.explainer import Explainer

Ids = Sequence[int]


def request(
    explainer: Explainer, images: list[Image.Image], prompt: str, answer: str | None, ids: Ids, prompt_ids: Ids = ()
) -> Request:
    """What an explainer is asked: the answer of the ids if there are any, else the text, else one to be written.

    Args:
        prompt_ids: if there are any, the prompt has these ids, or else InputError is raised.
    """
    asked = explainer._read(images, prompt, None if len(ids) else answer)
    if len(prompt_ids) and list(prompt_ids) != asked.ids:
        raise InputError(
            f"the stored prompt has {len(prompt_ids)} tokens, and {len(asked.ids)} others with this processor: it is a "
            "list of another model"
        )
    return replace(asked, targets=torch.tensor(ids)) if len(ids) else asked


def prompt(explainer: Explainer, ids: Ids) -> str:
    """The text of a prompt of one picture: its visual tokens are one placeholder again. Raises InputError."""
    tokenizer = getattr(explainer.processor, "tokenizer", None)
    image = getattr(explainer.model.config, "image_token_id", None)
    if tokenizer is None or image is None or image not in ids:
        raise InputError("the stored prompt holds no picture of this model: it is a list of another model")
    first = 1 if ids[0] == tokenizer.bos_token_id else 0  # which the tokenizer puts there again
    once = [one for one, run in groupby(ids[first:]) for one in ([one] if one == image else run)]
    return str(tokenizer.decode(once))


def chosen(item: Item) -> tuple[Ids, Ids]:
    """The ids of the prompt and of what is explained: targets that lie side by side in the answer, or all of it.

    What the answer says before the targets is then part of the prompt. A target that is another word than the answer's
    (EAGLE's opposite words) chooses nothing.
    """
    places = [place for place, _ in item.targets]
    first, stop = (places[0], places[-1] + 1) if places else (0, len(item.answer_ids))
    own = item.answer_ids[first:stop]
    if places != list(range(first, stop)) or own != tuple(token for _, token in item.targets):
        return item.prompt_ids, item.answer_ids
    return item.prompt_ids + item.answer_ids[:first], own
