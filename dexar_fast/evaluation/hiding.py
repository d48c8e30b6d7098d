"""The probabilities of an answer's tokens with parts of the pictures hidden, by pixels or by visual tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dexar_fast.attribution.masked import MaskedForwards
from dexar_fast.errors import NumericalError
from dexar_fast.evaluation.visual_tokens import HIDDEN, hidden_tokens, hiding
from dexar_fast.generation.asked import Asked
from dexar_fast.methods import knobs
from dexar_fast.methods.cut.hiding import FILLS, cover
from dexar_fast.metrics.maps import Mask
from dexar_fast.prompt.remade.pixels import Pixels

TOKENS = "tokens"  # the fill that hides visual tokens, not pixels
ALL_FILLS = (*FILLS, TOKENS)
LEAST = 1e-37  # a probability below this counts as this: float32 holds little less


def probabilities(
    asked: Asked, masks: Sequence[Sequence[Mask]], fill: str, batch: int | None = None
) -> NDArray[np.float64]:
    """[K, T], in [1e-37, 1]: of the T tokens of the answer, for each of K ways to hide parts of the pictures.

    Args:
        masks: for each way a mask of each picture, True where it is hidden, [height, width] of any size.
        fill: "black", "mean" (colour of a picture), "blur" or "noise", in the place of hidden pixels; or "tokens": the
            visual tokens whose centres are hidden enter the decoder as the mean of all visual tokens.
        batch: pictures in one forward; None takes as many as fit.
    Raises:
        InputError: an unknown fill; no image processor; pictures of which it makes other pixels than the inputs hold;
            visual tokens to hide whose places are not known. NumericalError: the model overflows.
    """
    knobs.one_of("fill", fill, ALL_FILLS)
    masked, make = (_by_tokens if fill == TOKENS else partial(_by_pixels, fill=fill))(asked, masks)
    inputs = {**asked.inputs, **masked}
    run = MaskedForwards(asked.model, inputs, asked.targets, asked.decoder, asked.visual, batch=batch)
    with _hooked(asked, fill):
        found = run(len(masks), make)
    if not found.isfinite().all():
        raise NumericalError("NaN where parts of the pictures are hidden: load the model in float32 or bfloat16")
    return found.double().numpy().clip(LEAST, 1)


Made = tuple[Mapping[str, Tensor], Callable[[range], list[dict[str, Tensor]]]]


def _by_pixels(asked: Asked, masks: Sequence[Sequence[Mask]], fill: str) -> Made:
    pixels = Pixels(asked.processor, asked.inputs, asked.images)
    pictures = [np.asarray(image) for image in asked.images]
    covers = [cover(picture, fill) for picture in pictures]

    def shown(hidden: Sequence[Mask]) -> list[Image.Image]:
        return [_covered(*parts) for parts in zip(pictures, covers, hidden, strict=True)]

    return {}, lambda chosen: pixels.of_each([shown(masks[i]) for i in chosen])


def _by_tokens(asked: Asked, masks: Sequence[Sequence[Mask]]) -> Made:
    sizes = [image.size for image in asked.images]
    rows = [hidden_tokens(asked.grids, sizes, hidden, len(asked.visual)) for hidden in masks]
    return {HIDDEN: torch.zeros_like(rows[0])}, lambda chosen: [{HIDDEN: rows[i]} for i in chosen]


def _hooked(asked: Asked, fill: str) -> AbstractContextManager[None]:
    return hiding(asked.model, asked.decoder, asked.visual) if fill == TOKENS else nullcontext()


def _covered(picture: NDArray[np.uint8], covered: NDArray[np.uint8], hidden: Mask) -> Image.Image:
    down, across = (np.arange(n) * m // n for n, m in zip(picture.shape[:2], hidden.shape, strict=True))
    return Image.fromarray(np.where(hidden[down][:, across, None], covered, picture))
