"""Text around the image: the chat template, the answer's token ids as they stand in context, the user's own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError

PIECE_CONTEXT = 4  # tokens decoded before each one, so that it gets the space or the bytes it stands behind


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it: the rendered text, and what of it the user wrote."""

    text: str
    own: list[str]  # the user's own text, in pieces where the image token splits it
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
    token = _image_token(processor, prompt)
    if token in prompt:
        if prompt.count(token) != images:
            raise InputError(f"the prompt holds {prompt.count(token)} image tokens {token!r} for {images} image(s)")
        return Prompt(prompt, [part.strip() for part in prompt.split(token) if part.strip()], None)
    if getattr(processor, "chat_template", None) is None:
        return Prompt(token * images + prompt, [prompt], None)
    content = [{"type": "image"} for _ in range(images)] + [{"type": "text", "text": prompt}]
    chat = [{"role": "user", "content": content}]
    return Prompt(processor.apply_chat_template(chat, add_generation_prompt=True), [prompt], chat)


def process(processor: Any, prompt: Prompt, images: list[Image.Image]) -> Mapping[str, Any]:
    """The model's inputs, batch 1; a template that writes the first special token itself gets no second one."""
    return processor(images=images, text=prompt.text, return_tensors="pt", **_special_tokens(processor, prompt.text))


def answer_ids(processor: Any, prompt: Prompt, response: str) -> Tensor:
    """Token ids [T] of an answer as it stands behind the prompt, with the space the chat template puts before it.

    Raises:
        InputError: an empty answer.
    """
    if not isinstance(response, str) or not response.strip():
        raise InputError("the answer is empty: give response= some text, or leave it out to generate one")
    tokenizer = processor.tokenizer
    answer = _as_placed(processor, prompt, response)
    special = _special_tokens(processor, prompt.text)
    before = tokenizer(prompt.text, **special).input_ids
    whole = tokenizer(prompt.text + answer, **special).input_ids
    ids = whole[len(before) :] if whole[: len(before)] == before else []
    return torch.tensor(ids or tokenizer(answer, add_special_tokens=False).input_ids)


def own_positions(processor: Any, prompt: Prompt, input_ids: Tensor) -> Tensor:
    """Positions in input_ids [1, P] of the user's own text, by its offsets in the rendered prompt.

    Raises:
        InputError: a tokenizer without offsets, or text that the prompt tokenises differently.
    """
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast:
        raise InputError("text_set='content' needs a fast tokenizer with character offsets; use text_set='all'")
    encoded = tokenizer(prompt.text, return_offsets_mapping=True, **_special_tokens(processor, prompt.text))
    ids = input_ids[0].tolist()
    positions: list[int] = []
    cursor = 0
    for part in prompt.own:
        start = prompt.text.index(part, cursor)
        cursor = start + len(part)
        run = [
            i for i, (a, b) in zip(encoded.input_ids, encoded.offset_mapping, strict=True) if a < cursor and b > start
        ]
        positions += _find(ids, run, positions[-1] + 1 if positions else 0)
    return torch.tensor(positions)


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text each token adds to the ones before it; the id itself where there is no tokenizer."""
    if tokenizer is None:
        return [str(i) for i in ids]
    texts = []
    for t in range(len(ids)):
        before = ids[max(0, t - PIECE_CONTEXT) : t]
        head, whole = tokenizer.decode(before), tokenizer.decode([*before, ids[t]])
        texts.append(whole[len(head) :] if whole.startswith(head) else tokenizer.decode([ids[t]]))
    return texts


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
    message = {"role": "assistant", "content": [{"type": "text", "text": response}]}
    whole = processor.apply_chat_template([*prompt.chat, message])
    before, found, _ = whole.removeprefix(prompt.text).partition(response.strip())
    placed = found and whole.startswith(prompt.text) and not before.strip()
    return before + response.lstrip() if placed and before else response


def _find(ids: list[int], run: list[int], start: int) -> list[int]:
    for first in range(start, len(ids) - len(run) + 1):
        if ids[first : first + len(run)] == run:
            return list(range(first, first + len(run)))
    raise InputError("the user's text was not found in the processed prompt: use text_set='all'")
