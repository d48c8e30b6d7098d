"""Text around the image: the chat template, the answer's token ids as they stand in context, the user's own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError, reason

LONGEST_CHARACTER = 4  # in tokens, as many as UTF-8 has bytes for it
UNFINISHED = "\ufffd"  # what the first bytes of a character are decoded to
MARK = "dexar_fast:prompt"  # stands for the user's text in a rendered chat template, to find where it begins


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it: the rendered text, and what of it the user wrote."""

    text: str
    own: list[tuple[int, int]] | None  # (start, end) of what the user wrote, image tokens left out; None: not found
    chat: list[dict[str, Any]] | None  # the messages behind a chat template


def render(processor: Any, prompt: str, images: int) -> Prompt:
    """The prompt with the image placed as the model expects it.

    A prompt that holds the model's image token is used as it stands. Else the chat template places the images before
    the text; a processor without one gets the image tokens, then the text.

    Raises:
        InputError: an empty prompt, or one whose image tokens do not match the number of images.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError("the prompt is empty: ask the model something")
    _check_unicode("prompt", prompt)
    token = _image_token(processor, prompt)
    if token in prompt:
        if prompt.count(token) != images:
            raise InputError(
                f"the prompt holds {prompt.count(token)} image tokens {token!r} for {images} image(s): write one for "
                "each, or none at all"
            )
        return Prompt(prompt, _between(prompt, token), None)
    if getattr(processor, "chat_template", None) is None:
        text = token * images + prompt
        return Prompt(text, _between(text, token), None)
    try:
        text, marked = (
            processor.apply_chat_template(_chat(asked, images), add_generation_prompt=True) for asked in (prompt, MARK)
        )
    except Exception as error:  # templates raise any kind of error
        raise InputError(
            f"the chat template fails ({reason(error)}): write the whole prompt, with the image token {token!r} in it"
        ) from error
    start = text.find(prompt.strip(), marked.find(MARK))
    own = None if start < 0 else [(start, start + len(prompt.strip()))]
    return Prompt(text, own, _chat(prompt, images))


def _check_unicode(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"the {what} is not valid Unicode: pass it as UTF-8") from None


def _chat(prompt: str, images: int) -> list[dict[str, Any]]:
    content = [{"type": "image"} for _ in range(images)] + [{"type": "text", "text": prompt}]
    return [{"role": "user", "content": content}]


def _between(text: str, token: str) -> list[tuple[int, int]]:
    """Where the text between image tokens lies, white space around it left out."""
    spans, cursor = [], 0
    for part in text.split(token):
        start = cursor + len(part) - len(part.lstrip())
        if part.strip():
            spans.append((start, start + len(part.strip())))
        cursor += len(part) + len(token)
    return spans


def process(processor: Any, prompt: Prompt, images: list[Image.Image]) -> Mapping[str, Any]:
    """The model's inputs, batch 1; a template that writes the first special token itself gets no second one.

    Raises:
        InputError: the processor refuses the image or the prompt.
    """
    special = _special_tokens(processor, prompt.text)
    try:
        return processor(images=images, text=prompt.text, return_tensors="pt", **special)
    except Exception as error:  # as each family's processor likes, for an image too thin or a text too strange
        raise InputError(
            f"{type(processor).__name__} cannot take this image with this prompt: {reason(error)}"
        ) from error


def answer_ids(processor: Any, prompt: Prompt, response: str) -> Tensor:
    """Token ids [T] of an answer as it stands behind the prompt, with the space the chat template puts before it.

    Raises:
        InputError: an empty answer.
    """
    if not isinstance(response, str) or not response.strip():
        raise InputError("the answer is empty: give response= some text, or leave it out to generate one")
    _check_unicode("answer", response)
    tokenizer = processor.tokenizer
    answer = _as_placed(processor, prompt, response)
    before, whole = (
        tokenizer(text, add_special_tokens=False).input_ids for text in (prompt.text, prompt.text + answer)
    )
    ids = whole[len(before) :] if whole[: len(before)] == before else []
    return torch.tensor(ids or tokenizer(answer, add_special_tokens=False).input_ids, device="cpu")


def own_positions(processor: Any, prompt: Prompt, input_ids: Tensor) -> Tensor:
    """Positions in input_ids [1, P] of the user's own text, by its offsets in the rendered prompt.

    Raises:
        InputError: a tokenizer without offsets, or text that the prompt tokenises differently.
    """
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast:
        raise InputError("text_set='content' needs a fast tokenizer with character offsets; use text_set='all'")
    if prompt.own is None:
        raise InputError("the chat template changes the user's text: use text_set='all'")
    encoded = tokenizer(prompt.text, return_offsets_mapping=True, **_special_tokens(processor, prompt.text))
    positions: list[int] = []
    for start, end in prompt.own:
        run = [n for n, (a, b) in enumerate(encoded.offset_mapping) if a < end and b > start]
        positions += _same_tokens(encoded.input_ids, run, input_ids[0].tolist())
    return torch.tensor(positions, dtype=torch.long, device="cpu")


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text each token adds to the ones before it; the id itself where there is no tokenizer.

    A character whose bytes are spread over tokens is the piece of the last of them.
    """
    running = Pieces(tokenizer)
    texts = [running.add(token) for token in ids]
    return [*texts[:-1], texts[-1] + running.rest()] if texts else []


class Pieces:
    """`pieces` of tokens as they come."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []  # decoded again: the next token gets the space it stands behind
        self._new: list[int] = []  # whose text is not finished

    def add(self, token: int) -> str:
        """The text that the next token adds; empty while a character lacks bytes."""
        if self._tokenizer is None:
            return str(token)
        self._new.append(token)
        whole = self._tokenizer.decode(self._before + self._new)
        if whole.endswith(UNFINISHED) and len(self._new) < LONGEST_CHARACTER:
            return ""
        text, self._before, self._new = self._added(whole), self._new, []
        return text

    def rest(self) -> str:
        """What the last tokens are if no more come: the text of a character that lacks bytes."""
        return self._added(self._tokenizer.decode(self._before + self._new)) if self._new else ""

    def _added(self, whole: str) -> str:
        head = self._tokenizer.decode(self._before)
        return whole[len(head) :] if whole.startswith(head) else self._tokenizer.decode(self._new)


def _image_token(processor: Any, prompt: str) -> str:
    """The token the user would write for an image; Gemma 3 writes it as the begin-of-image token."""
    tokens = [getattr(processor, name, None) for name in ("boi_token", "image_token")]
    known = [str(token) for token in tokens if token] or ["<image>"]
    return next((token for token in known if token in prompt), known[0])


def _special_tokens(processor: Any, text: str) -> dict[str, bool]:
    start = getattr(processor.tokenizer, "bos_token", None)
    return {"add_special_tokens": not (start and text.startswith(start))}


def _as_placed(processor: Any, prompt: Prompt, response: str) -> str:
    """The answer with the white space that the chat template writes between its own text and an answer."""
    if prompt.chat is None:
        return response
    answer = response.strip()
    message = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    whole = processor.apply_chat_template([*prompt.chat, message])
    before, found, _ = whole.removeprefix(prompt.text).partition(answer)
    placed = found and whole.startswith(prompt.text) and not before.strip()
    return before + response.lstrip() if placed and before else response


def _same_tokens(rendered: list[int], run: list[int], ids: list[int]) -> list[int]:
    """Positions in `ids` of the tokens rendered[run]: their n-th occurrence there, if it is the n-th in `rendered`.

    `ids` is `rendered` with every image token drawn out.
    """
    wanted = [rendered[n] for n in run]
    nth = len(_occurrences(rendered[: run[-1] + 1], wanted)) if run else 0
    found = _occurrences(ids, wanted)
    if not 0 < nth <= len(found):
        raise InputError("the user's text was not found in the processed prompt: use text_set='all'")
    return list(range(found[nth - 1], found[nth - 1] + len(wanted)))


def _occurrences(ids: list[int], wanted: list[int]) -> list[int]:
    return [n for n in range(len(ids) - len(wanted) + 1) if ids[n : n + len(wanted)] == wanted]
