"""The one type of item that every reader gives: a picture, what is asked of it, and what is known of the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.data import pictures
from dexar_fast.data.pictures import Stored
from dexar_fast.errors import InputError, reason

Mask = NDArray[np.bool_]
Outline = Callable[[int, int], Mask]  # of the picture's height and width
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, right and bottom not included


@dataclass(frozen=True)
class Region:
    """An object of a picture: its name; its outline, its box or both. A box alone stands for all pixels in it."""

    label: str
    box: Box | None = None
    outline: Outline | None = None


@dataclass(frozen=True)
class Phrase:
    """Words of interest: the characters from `start` to `stop` of the answer, and the indices of the regions they name.

    Words outside of all phrases are filler; a phrase without regions names what is not in the picture, or not marked.
    """

    start: int
    stop: int
    regions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Item:
    """A row of a data set. Pictures and masks are opened when they are asked for.

    Attributes:
        id: names the item; no two items of a data set have the same.
        picture: the path of a file, or a function that makes the picture; None if `error` says why there is none.
        question: None where the data set asks nothing: ask what you like.
        answer: the answer to explain, as the data set gives it; None: let the model write one.
        references: what counts as right, the best first.
        answer_ids: token ids of a stored answer, end-of-turn id included, of the model that the data set names.
        prompt_ids: token ids of the prompt before it, visual placeholders included.
        targets: what to explain of a stored answer: (its index in the answer, token id to score there).
        regions: the objects that are marked.
        phrases: words of interest in `answer`.
        void: pixels that no metric may count.
        error: why the item cannot be used.
    """

    id: str
    picture: pictures.Picture | None = None
    question: str | None = None
    answer: str | None = None
    references: tuple[str, ...] = ()
    answer_ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    targets: tuple[tuple[int, int], ...] = ()
    regions: tuple[Region, ...] = ()
    phrases: tuple[Phrase, ...] = ()
    void: Outline | None = None
    error: InputError | None = None

    def __post_init__(self) -> None:
        """Raises InputError for what is no text where a text is due: annotations may hold anything."""
        given = [("question", self.question), ("answer", self.answer)]
        texts = [(what, text) for what, text in given if text is not None]
        for what, text in [*texts, *(("a reference", one) for one in self.references)]:
            if not isinstance(text, str):
                raise InputError(f"item {self.id!r}: {what} is a {type(text).__name__} where a text is due")

    @property
    def image(self) -> Path | Image.Image:
        """What `Explainer.explain` takes: the path of a file as it is, or the picture. Raises `error`, ImageError."""
        picture = self._picture()
        return picture if isinstance(picture, Path) else pictures.opened(picture, self.id)

    def masks(self) -> Mask:
        """bool [regions, height, width] of the picture as models see it, upright. Raises ImageError, InputError.

        Outlines and boxes are of the pixels as they are stored; they turn with them where EXIF says so.
        """
        stored = self._stored()
        masks = [self._drawn(_outline(region), f"the region {region.label!r}", stored) for region in self.regions]
        return np.stack(masks) if masks else np.zeros((0, *_nothing(stored).shape), np.bool_)

    def ignored(self) -> Mask:
        """bool [height, width]: the pixels of `void`, upright as `masks`. Raises ImageError, InputError."""
        stored = self._stored()
        return _nothing(stored) if self.void is None else self._drawn(self.void, "void", stored)

    def checked(self) -> Item:
        """The item; or the same with its error, if the picture cannot be decoded or a mask not be drawn."""
        try:
            pictures.opened(self._picture(), self.id)
            self.masks()
            self.ignored()
        except InputError as error:
            return replace(self, error=error)
        return self

    def _picture(self) -> pictures.Picture:
        if self.error is not None:
            raise self.error
        if self.picture is None:
            raise InputError(f"item {self.id!r} has no picture")
        return self.picture

    def _stored(self) -> Stored:
        return pictures.stored(self._picture(), self.id)

    def _drawn(self, outline: Outline, what: str, stored: Stored) -> Mask:
        width, height, _ = stored
        try:
            mask = outline(height, width)
        except Exception as error:  # annotations may hold anything
            raise InputError(f"item {self.id!r}: {what} cannot be drawn: {reason(error)}") from error
        if mask.shape != (height, width):
            raise InputError(
                f"item {self.id!r}: {what} is {mask.shape[1]} x {mask.shape[0]} pixels, the picture {width} x {height}"
            )
        return stored.upright(mask)


def _nothing(stored: Stored) -> Mask:
    return stored.upright(np.zeros((stored.height, stored.width), np.bool_))


def _outline(region: Region) -> Outline:
    return region.outline or _Filled(region.box)


@dataclass(frozen=True)
class _Filled:
    """All pixels whose centre lies in a box."""

    box: Box | None

    def __call__(self, height: int, width: int) -> Mask:
        if self.box is None:
            raise InputError("it has neither outline nor box")
        left, top, right, bottom = self.box
        rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
        return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
