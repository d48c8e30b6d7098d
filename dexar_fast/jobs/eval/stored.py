"""A prompt that a data set stores as ids, as text that the processor makes the same ids of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from dexar_fast.data.item import Item
from dexar_fast.errors import InputError
from dexar_fast.explainer import Explainer


def prompt(explainer: Explainer, ids: Sequence[int]) -> str:
    """The text of a prompt of one picture: its visual tokens are one placeholder again. Raises InputError."""
    tokenizer = getattr(explainer.processor, "tokenizer", None)
    image = getattr(explainer.model.config, "image_token_id", None)
    if tokenizer is None or image is None or image not in ids:
        raise InputError("the stored prompt holds no picture of this model: it is a list of another model")
    first = 1 if ids[0] == tokenizer.bos_token_id else 0  # which the tokenizer puts there again
    once = [one for one, run in groupby(ids[first:]) for one in ([one] if one == image else run)]
    return str(tokenizer.decode(once))


def check(item: Item, ids: Sequence[int]) -> None:
    """Raises InputError where the processor makes other ids of a stored prompt."""
    if item.prompt_ids and list(item.prompt_ids) != list(ids):
        raise InputError(
            f"item {item.id!r}: the stored prompt has {len(item.prompt_ids)} tokens, and {len(ids)} others with this "
            "processor: it is a list of another model"
        )
