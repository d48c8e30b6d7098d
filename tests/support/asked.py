"""What a method of explanation is asked: a tiny model on loan, its prompt and an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import zoo
from PIL import Image

from dexar_fast.methods.base import Asked
from dexar_fast.model.lending.session import borrowed
from dexar_fast.model.prefill import Prefix, prefill
from dexar_fast.vision.geometry import layout


@contextmanager
def asked(
    model: Any,
    inputs: zoo.Inputs,
    targets: torch.Tensor,
    *,
    processor: Any = None,
    images: Sequence[Image.Image] = (),
) -> Iterator[Asked]:
    """The request of an answer [T] to a prompt; the model is on loan inside the block.

    Families that cut an image into tiles have grids only where the images are given.
    """
    wanted = {name: value for name, value in inputs.items() if name != "labels"}
    with borrowed(model):
        decoder = prefill(model, wanted, None, Prefix(model.config)).decoder
        placed = layout(model.config, processor, wanted, [image.size for image in images] or None)
        yield Asked(model, processor, decoder, wanted, targets, tuple(images), placed.positions, placed.grids)


@contextmanager
def asked_of(family: str, tokens: int = 5, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Iterator[Asked]:
    """An answer of random words to the prompt of a family of the zoo."""
    model, inputs = zoo.build(family, dtype, seed)
    with asked(model, inputs, torch.tensor(zoo.Draw(seed + 1).words(tokens))) as request:
        yield request


def greedy(model: Any, inputs: zoo.Inputs, tokens: int) -> torch.Tensor:
    """The answer [T] that the model itself would write."""
    wanted = {name: value for name, value in inputs.items() if name != "labels"}
    answer = model.generate(**wanted, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    return answer[0, inputs["input_ids"].shape[1] :]
