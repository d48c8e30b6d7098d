"""A dialogue behind an answer: what was said, and the next prompt with the token ids as they were written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.prompt import prompting
from dexar_fast.prompt.chat import Message
from dexar_fast.prompt.inputs import SEQUENCES, is_visual
from dexar_fast.prompt.request import Request

REWRITTEN = (
    "the chat template or the tokenizer writes the dialogue otherwise than the model read and wrote it: it is read as "
    "the template has it now, and runs again from the first difference"
)
READ = {"attention_mask": 1}  # what inputs say of a token of an answer; the others are types, of which 0 is text


def question(processor: Any, text: Any, images: int) -> Message:
    """The user's message about so many new images: they come before its words, or where it holds image tokens.

    Raises:
        InputError: no text, or an empty one.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError("the question must be a text that asks the model something")
    places = 0 if prompting.image_token(processor) in text else images
    return {"role": "user", "content": [{"type": "image"}] * places + [{"type": "text", "text": text}]}


@dataclass(frozen=True)
class Said:
    """A dialogue up to the end of an answer: S tokens, as the model read or wrote them."""

    messages: list[Message]
    images: list[Image.Image]
    question: str
    answer: str
    prompt: str  # as the template wrote it, without the answer
    tokens: Mapping[str, Tensor]  # those of SEQUENCES that the model takes, [1, S], on the CPU
    content: Tensor | None  # positions of the user's own text
    is_text: bool  # whether the answer holds no image token, which could not be read as it was written

    @classmethod
    def of(cls, model: Any, processor: Any, before: Said | None, text: str, asked: Request, answer: Tensor) -> Said:
        """What was said when the answer [T] to a question has been written, behind what was said before."""
        known = [] if before is None else before.messages
        message = question(processor, text, len(asked.images) - (0 if before is None else len(before.images)))
        written = processor.tokenizer.decode(answer, skip_special_tokens=True).strip()
        answered = {"role": "assistant", "content": [{"type": "text", "text": written}]}
        return cls(
            messages=[*known, message, answered],
            images=asked.images,
            question=text,
            answer=written,
            prompt=asked.text or "",
            tokens={name: _followed(name, asked.inputs[name].cpu(), answer) for name in _given(asked)},
            content=asked.content,
            is_text=not bool(is_visual(model, answer).any()),
        )

    def __len__(self) -> int:
        """S."""
        return self.tokens["input_ids"].shape[1]

    def followed_by(self, processor: Any, asked: Request) -> Request:
        """A request whose prompt goes on behind this, with the ids of the answer as they were written.

        They stand for those of the template where it writes the same text and the tokenizer begins a token behind it.
        Else the prompt stays as the template has it, with a warning.
        """
        if asked.ids[: len(self)] == self.tokens["input_ids"][0].tolist():
            return asked
        retold = self._retold(processor, asked)
        if retold is None or {*_given(asked)} != {*self.tokens} or _has_more(asked):
            return replace(asked, warnings=(*asked.warnings, REWRITTEN))
        joined = {name: torch.cat([told, asked.inputs[name][:, retold:]], 1) for name, told in self.tokens.items()}
        moved = self._content(asked.content, retold)
        return replace(asked, inputs={**asked.inputs, **joined}, content=moved)

    def _retold(self, processor: Any, asked: Request) -> int | None:
        """How many tokens of a prompt tell this in the template's words; None where its end cannot be told."""
        text = asked.text or ""
        rest = text.removeprefix(self.prompt).lstrip()
        if not (self.is_text and self.answer and text.startswith(self.prompt) and rest.startswith(self.answer)):
            return None
        told = prompting.Prompt(text[: len(text) - len(rest) + len(self.answer)], None, self.images)
        try:
            ids = prompting.process(processor, told)["input_ids"][0].tolist()
        except InputError:
            return None
        return len(ids) if asked.ids[: len(ids)] == ids else None

    def _content(self, content: Tensor | None, retold: int) -> Tensor | None:
        """Positions of the user's own text, where these tokens stand for the first `retold`."""
        if content is None or self.content is None:
            return None
        return torch.cat([self.content, content[content >= retold] - retold + len(self)])


def _given(asked: Request) -> list[str]:
    return [name for name in SEQUENCES if name in asked.inputs]


def _has_more(asked: Request) -> bool:
    """Whether other inputs, too, have an entry for each token."""
    whole = {name for name, value in asked.inputs.items() if isinstance(value, Tensor)}
    return any(asked.inputs[name].shape[:2] == (1, len(asked.ids)) for name in whole.difference(SEQUENCES))


def _followed(name: str, tokens: Tensor, answer: Tensor) -> Tensor:
    """[1, P + T] of [1, P], for an answer [T]."""
    more = answer.cpu() if name == "input_ids" else torch.full_like(answer.cpu(), READ.get(name, 0))
    return torch.cat([tokens, more[None].to(tokens)], 1)
