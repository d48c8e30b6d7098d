"""Images and frames of videos under one name, in the order of the prompt (InternVL): whose pixels stand where."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dexar_fast.prompt.remade.making import CLOSE, IMAGES, VIDEO, alike, made, made_of_videos

FRAME = re.compile(r"\bframe", re.IGNORECASE)

Order = tuple[bool, ...]  # of the pictures in the order of the prompt, whether each is a frame
Piece = Callable[[Image.Image], Tensor | None]  # [squares, channels, height, width] of a picture


class Woven:
    """Makes the pixels of pictures one by one; settings: of the image processor."""

    def __init__(self, processor: Any, settings: Mapping[str, Any]) -> None:
        self._processor, self._settings = processor, settings

    def order(self, images: Sequence[Image.Image], frames: Sequence[Image.Image], pixels: Tensor) -> Order | None:
        """The order in which these make up the pixels [squares, ...], both kinds as given; None if they do not."""
        waiting = {False: map(self._image, images), True: map(self._frame, frames)}
        heads = {kind: next(pieces, None) for kind, pieces in waiting.items()}
        order, start = [], 0
        while start < len(pixels):
            kind, length = next(_fitting(pixels[start:], heads), (None, 0))
            if kind is None:
                return None
            heads[kind] = next(waiting[kind], None)
            start += length
            order.append(kind)
        return tuple(order) if len(order) == len(images) + len(frames) else None

    def made(self, order: Order, pictures: Sequence[Image.Image]) -> dict[str, Tensor] | None:
        """The pixels of other pictures, images then frames, in that order; None where the processor refuses any."""
        images = iter(pictures[: order.count(False)])
        frames = iter(pictures[order.count(False) :])
        pieces = [self._frame(next(frames)) if kind else self._image(next(images)) for kind in order]
        whole = [piece for piece in pieces if piece is not None]
        return {IMAGES: torch.cat(whole)} if len(whole) == len(pieces) else None

    def _image(self, picture: Image.Image) -> Tensor | None:
        found = made(self._processor.image_processor, [picture], self._settings)
        return None if found is None else found.get(IMAGES)

    def _frame(self, picture: Image.Image) -> Tensor | None:
        found = named_as_images(made_of_videos(self._processor, [[picture]]))
        return None if found is None else found.get(IMAGES)


def named_as_images(found: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What a video processor made, under the name of images if the inputs have no other for videos."""
    return found if found is None or VIDEO not in found else {IMAGES: found[VIDEO].flatten(0, 1)}


def announced(processor: Any, inputs: Mapping[str, Any]) -> int:
    """Before how many runs of image tokens the prompt speaks of a frame; 0 where it cannot be read."""
    tokenizer, token = getattr(processor, "tokenizer", None), getattr(processor, "image_token_id", None)
    ids = inputs.get("input_ids")
    if tokenizer is None or token is None or ids is None:
        return 0
    return sum(bool(FRAME.search(tokenizer.decode(words))) for words in _before(ids[0].tolist(), token))


def _before(ids: Sequence[int], image: int) -> Iterator[list[int]]:
    """The ids that stand before each run of image tokens."""
    words: list[int] = []
    for token, run in itertools.groupby(ids):
        if token == image:
            yield words
            words = []
        else:
            words += run


def _fitting(pixels: Tensor, heads: Mapping[bool, Tensor | None]) -> Iterator[tuple[bool, int]]:
    """The kinds whose next piece the pixels begin with, and how long it is."""
    for kind, piece in heads.items():
        if piece is not None and alike(piece, pixels[: len(piece)], CLOSE):
            yield kind, len(piece)
