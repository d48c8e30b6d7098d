"""Dialogues of the zoo's models, as ids: a prompt that goes on behind another and its answer; how much a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from dexar_fast.kvcache import weights

MORE = torch.tensor([40, 51, 62, 73, 84])
TYPES = ("token_type_ids", "mm_token_type_ids")


def with_words(inputs: zoo.Inputs, answer: Tensor, words: Tensor = MORE) -> zoo.Inputs:
    """The next prompt: the answer [T] behind the inputs, and words behind it."""
    return {name: _followed(name, x, torch.cat([answer, words]), inputs) for name, x in inputs.items()}


def with_images(inputs: zoo.Inputs, answer: Tensor, first: zoo.Inputs) -> zoo.Inputs:
    """The same with all that the `first` inputs hold behind their first token, other pixels in its images."""
    spoken, found = with_words(inputs, answer, MORE[:0]), {}
    tiles = int("pixel_attention_mask" in inputs)  # the axis that counts images; Idefics has [1, tiles, ...]
    for name, more in first.items():
        of_tokens = more.shape[:2] == first["input_ids"].shape
        added = more[:, 1:] if of_tokens else 0.7 * more + 0.1 if more.is_floating_point() else more
        found[name] = torch.cat([spoken[name], added], int(of_tokens) or tiles)
    return found


def _followed(name: str, value: Tensor, ids: Tensor, inputs: zoo.Inputs) -> Tensor:
    if value.shape[:2] != inputs["input_ids"].shape:
        return value
    more = ids if name == "input_ids" else torch.full_like(ids, int(name not in TYPES))
    return torch.cat([value, more[None].to(value)], 1)


@contextmanager
def counted(module: Any) -> Iterator[list[int]]:
    """The number of positions, or of images, of each call of a module."""
    seen: list[int] = []

    def hook(_: Any, args: Any, kwargs: Any) -> None:
        first = args[0] if args else next(iter(kwargs.values()))
        seen.append(first.shape[1])

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(weights, "OBSERVERS", (*weights.OBSERVERS, __name__))  # another hook ends the reuse
            yield seen
    finally:
        handle.remove()
