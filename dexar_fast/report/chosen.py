"""What a caller chose of an explanation: tokens, an image, a picture to draw over. And the map of that choice."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.errors import InputError
from dexar_fast.report import placing
from dexar_fast.report.words import merged
from dexar_fast.results.schema import Result
from dexar_fast.vision.images import load_image
from dexar_fast.vision.maps import Canvas

Picture = Image.Image | str | os.PathLike[str] | NDArray[Any]
Tokens = int | slice | Sequence[int]  # a token, or those of a phrase


class Choice(Result):
    """A result, asked for the map of a token, of a phrase or of the whole answer."""

    def _canvas(self, token: Tokens | None, image: int, size: tuple[int, int], filtered: bool) -> Canvas:
        """The map over an image scaled to `size`."""
        placing.check_geometry(self)
        return placing.canvas(self, self._raw_map(token, filtered), self._image_index(image), size)

    def _raw_map(self, token: Tokens | None, filtered: bool) -> NDArray[np.floating]:
        """[N]"""
        if token is None:
            return (self.sequence_map if filtered else self.unfiltered_sequence_map).numpy()
        maps = self.token_maps if filtered else self.unfiltered_token_maps
        if _is_phrase(token):
            phrase = self._phrase(token)
            weights = self.token_weights[phrase].double().numpy()
            return merged(maps[phrase].double().numpy(), weights if filtered else np.zeros_like(weights))
        return maps[self._token_index(token)].numpy()

    def _picture(self, image: int | Picture | None) -> tuple[int, Image.Image]:
        """Which image's map to draw, and the picture to draw it over."""
        if image is None or isinstance(image, int | np.integer):
            index = 0 if image is None else image
            return int(index), self._image(index)
        return 0, load_image(image)

    def _image(self, image: Any) -> Image.Image:
        if not self.images:
            raise InputError("no image was kept: draw over one with overlay(image=...) or plot(image=...)")
        return self.images[self._image_index(image)]

    def _image_index(self, image: int) -> int:
        return _position(image, placing.count(self), "image")

    def _token_index(self, token: Any) -> int:
        return _position(token, len(self), "token")

    def _token_indices(self, tokens: Any) -> list[int]:
        return indices(tokens, len(self), "token")

    def _phrase(self, tokens: Any) -> list[int]:
        """The indices that a slice or a list chooses, each once. Raises InputError."""
        try:
            chosen = range(len(self))[tokens] if isinstance(tokens, slice) else self._token_indices(tokens)
        except (TypeError, ValueError) as error:
            raise InputError(f"token {tokens!r} is no slice of indices: {error}") from None
        if not chosen:
            raise InputError(f"token {tokens!r} chooses none of the {len(self)} tokens: a phrase has at least one")
        if len(set(chosen)) < len(chosen):
            raise InputError(f"token {tokens!r} names a token twice: name each token of a phrase once")
        return list(chosen)


def _is_phrase(token: Any) -> bool:
    """Whether it names tokens by a slice or a list, not one by its index."""
    if isinstance(token, torch.Tensor | np.ndarray):
        return token.ndim > 0
    return isinstance(token, slice) or (hasattr(token, "__iter__") and not isinstance(token, str | bytes))


def indices(listed: Any, count: int, what: str) -> list[int]:
    """A list of indices into `count` things, each from the start. Raises InputError."""
    try:
        chosen = list(listed)
    except TypeError:
        raise InputError(f"{what}s must be a list of indices, not {listed!r}: for one pass [{listed!r}]") from None
    return [_position(index, count, what) for index in chosen]


def _position(index: Any, count: int, what: str) -> int:
    """The index from the start of the `index`-th of `count` things, counted as Python does."""
    if isinstance(index, bool | np.bool_) or getattr(index, "dtype", None) == torch.bool:
        raise InputError(f"{what} {index!r} is no index but a truth value: count from 0, or back from -1")
    try:
        place = operator.index(index)
    except TypeError:
        raise InputError(f"{what} {index!r} is no index: count from 0, or back from -1") from None
    if not -count <= place < count:
        raise InputError(f"{what} {place} is out of range: there are {count}")
    return place % count
