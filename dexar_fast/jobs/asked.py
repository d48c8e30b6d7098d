"""What a job asks of every item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dexar_fast.data import Item
from dexar_fast.errors import InputError
from dexar_fast.vision.images import load_images

QUESTION = "{question}"
Request = tuple[Any, str | None, str | None]  # image, prompt (None: the item's, stored as ids), answer
Read = tuple[Item, Request | InputError]


@dataclass(frozen=True)
class Asked:
    """The prompt and how it is answered.

    Attributes:
        prompt: for every item; "{question}" in it stands for the item's own. None: the item's own prompt or question.
        written: let the model write every answer; otherwise those that the data set gives are explained, by their ids
            if it stores them.
        batch_size: how many answers run at once, by the method "dex-ar"; None takes 16 or as many as fit. 1: one after
            the other, and what items of one picture share runs once, as it does by the other methods.
        arguments: of generate().
    """

    prompt: str | None = None
    written: bool = False
    batch_size: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def read(self, item: Item) -> Read:
        """The item with its picture, decoded, and what is asked of it; or the error that says why nothing is."""
        try:
            return item, self.request(item)
        except InputError as error:
            return item, error

    def request(self, item: Item) -> Request:
        """Raises the item's error; ImageError; InputError where nothing is asked."""
        images = load_images(item.image)
        text = None if self.prompt is None and item.prompt_ids else self.text(item)
        return images, text, None if self.written else item.answer

    def ids(self, item: Item) -> tuple[int, ...]:
        """Of the answer to explain; none where it is a text, or to be written."""
        return () if self.written else item.answer_ids

    def text(self, item: Item) -> str:
        """The prompt of an item in words. Raises InputError where nothing is asked."""
        prompt = QUESTION if self.prompt is None else self.prompt
        if QUESTION not in prompt:
            return prompt
        if item.question is None:
            raise InputError(f"item {item.id!r} asks nothing: give a prompt")
        return prompt.replace(QUESTION, item.question)

    def text_or_none(self, item: Item) -> str | None:
        """The same; None where nothing is asked."""
        try:
            return self.text(item)
        except InputError:
            return None
