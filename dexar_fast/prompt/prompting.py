"""Text around the image: the rendered prompt, the answer's token ids as they stand in context, the user's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError, reason
from dexar_fast.prompt import chat, templates

# What families write for an image. One that is not the model's own is read as words.
IMAGE_TOKENS = (
    "<image>",
    "<|image|>",
    "<|image_pad|>",
    "<image_soft_token>",
    "<start_of_image>",
    "<IMG_CONTEXT>",
    "<image_placeholder>",
    "[IMG]",
)
# A thought that a prompt opens, and perhaps closes, for the answer; then white space.
THOUGHT = re.compile(
    r"(<[|\w:]*think[|\w:]*>|\[THINK\])(?:\s*(</[|\w:]*think[|\w:]*>|\[/THINK\]))?(\s*)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it: the rendered text, and what of it the user wrote."""

    text: str
    own: list[templates.Span] | None  # (start, end) of what the user wrote, image tokens left out; None: not found
    images: list[Image.Image]
    written: templates.Written | None = None  # by a chat template
    warnings: tuple[str, ...] = ()
    bare: str | None = None  # without image tokens, for a processor that puts them there itself
    together: bool = False  # whether the images are those of one conversation, as a chat template passes them on


def render(processor: Any, prompt: Any, images: list[Image.Image]) -> Prompt:
    """The prompt, a text or chat messages, with the images placed as the model expects them.

    A text that holds the model's image token is used as it stands. Any other goes through the chat template, the images
    before it; a processor without one gets the image tokens, then the text.

    Raises:
        InputError: an empty prompt, a template that does not take it, or another number of image tokens than images.
        ImageError: no image, or one in a message that cannot be read.
    """
    messages = _messages(prompt)
    words = "\n".join(text for _, text in chat.texts(messages))
    _check_unicode("prompt", words)
    token = image_token(processor)
    foreign = tuple(_foreign(processor, words, token))
    if isinstance(prompt, str) and token in prompt:
        _check_tokens("prompt holds", prompt, token, len(images))
        return Prompt(prompt, templates.split(prompt, token), images, warnings=foreign)
    asked = chat.shown(messages, images, token)
    template = templates.template_of(processor)
    if template is None:
        return _untemplated(processor, asked, token, foreign)
    written = templates.write(processor, template, asked, token)
    if token in written.text:
        _check_tokens("chat template writes", written.text, token, len(asked.images))
    return Prompt(written.text, written.own, asked.images, written, (*foreign, *written.warnings), together=True)


def question(processor: Any, prompt: Any) -> str:
    """What the user asked, without image tokens; of messages, the last one of theirs that holds words."""
    messages = [[message] for message in _messages(prompt) if chat.is_user(message["role"])]
    said = [" ".join(text for _, text in chat.texts(message)) for message in messages]
    plain = [text.replace(image_token(processor), " ").strip() for text in said]
    return next((text for text in reversed(plain) if text), "")


def _messages(prompt: Any) -> list[chat.Message]:
    return chat.read(prompt if chat.is_chat(prompt) else [{"role": "user", "content": _asked(prompt)}])


def _asked(prompt: Any) -> str:
    if not isinstance(prompt, str):
        raise InputError(f"the prompt must be a text, or a list of messages, not a {type(prompt).__name__}")
    return prompt


def _untemplated(processor: Any, asked: chat.Chat, token: str, warnings: tuple[str, ...]) -> Prompt:
    """One message as it stands, a token for each image."""
    name = type(processor).__name__
    if len(asked.messages) > 1:
        raise InputError(
            f"{name} has no chat template to write {len(asked.messages)} messages with: write the whole prompt as a "
            f"text, with the image token {token!r} in it"
        )
    parts = asked.messages[0]["content"]
    text = "".join(token if part["type"] == "image" else part["text"] for part in parts)
    bare = "".join(part["text"] for part in parts if part["type"] != "image")
    missing = (
        f"{name} has no chat template: the prompt goes to the model as it stands, behind the image; a model that was "
        f"trained on another form needs it written out, with the image token {token!r} in it"
    )
    return Prompt(text, templates.split(text, token), asked.images, warnings=(*warnings, missing), bare=bare)


def _check_tokens(what: str, text: str, token: str, images: int) -> None:
    if text.count(token) != images:
        raise InputError(
            f"the {what} {text.count(token)} image tokens {token!r} for {images} image(s): write one for each in the "
            "prompt, or none at all"
        )


def image_token(processor: Any) -> str:
    """The token the user would write for an image."""
    return str(getattr(processor, "image_token", None) or "<image>")


def _foreign(processor: Any, words: str, token: str) -> Iterator[str]:
    """Warnings of image tokens in the words that are other models'."""
    own = {str(value) for name, value in vars(processor).items() if name.endswith("_token")} | {token}
    for other in IMAGE_TOKENS:
        if other in words and other not in own:
            yield (
                f"the prompt holds {other!r}, which stands for an image in other models: this one reads it as words "
                f"(its own is {token!r})"
            )


def _check_unicode(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"the {what} is not valid Unicode: pass it as UTF-8") from None


def process(processor: Any, prompt: Prompt) -> Mapping[str, Any]:
    """The model's inputs, batch 1; a template that writes the first special token itself gets no second one.

    Raises:
        InputError: the processor refuses the image or the prompt.
    """
    special = _special_tokens(processor, prompt.text)
    try:
        return processor(images=_together(prompt), text=prompt.text, return_tensors="pt", **special)
    except Exception as error:  # processors raise any kind of error: an image too thin, a text too strange
        raise InputError(
            f"{type(processor).__name__} cannot take this image with this prompt: {reason(error)}"
        ) from error


def _together(prompt: Prompt) -> list[Any]:
    """The images, several of one conversation as its template passes them on."""
    return [prompt.images] if prompt.together and len(prompt.images) > 1 else prompt.images


def process_bare(processor: Any, prompt: Prompt) -> tuple[Prompt, Mapping[str, Any]]:
    """The prompt as such a processor takes it, and the model's inputs: without image tokens, if it can.

    Raises InputError as `process` does.
    """
    if prompt.bare is not None:
        alone = replace(prompt, text=prompt.bare, own=[(0, len(prompt.bare))])
        with suppress(InputError):
            inputs = process(processor, alone)
            return replace(alone, warnings=(*alone.warnings, *_unread(processor, inputs))), inputs
    return prompt, process(processor, prompt)


def _unread(processor: Any, inputs: Mapping[str, Any]) -> Iterator[str]:
    """A warning of a processor that takes the text for something else than a prompt (TrOCR's, Donut's)."""
    if "labels" in inputs and "input_ids" not in inputs:
        yield (
            f"{type(processor).__name__} takes a text for an answer to train on: the model reads the image alone; ask "
            'with the prompt "", or give the ids that its decoder begins with to explain_inputs()'
        )


def process_image(processor: Any, images: list[Image.Image]) -> tuple[Prompt, Mapping[str, Any]]:
    """The same of images without a prompt. Raises InputError: the processor needs one, or refuses the image."""
    try:
        return Prompt("", [], images), processor(images=images, return_tensors="pt")
    except Exception as error:  # as in `process`
        raise InputError(
            f"{type(processor).__name__} cannot take this image without a prompt: {reason(error)}"
        ) from error


def answer_ids(processor: Any, prompt: Prompt, response: str, opening: list[int] | None = None) -> Tensor:
    """Token ids [T] of an answer in its place after the prompt, with the space the chat template puts before it.

    Args:
        opening: the ids that it begins with where it does not stand behind the prompt: the decoder of an
            encoder-decoder reads it alone.
    Raises:
        InputError: an empty answer.
    """
    if not isinstance(response, str):
        raise InputError(f"the answer must be a text, not a {type(response).__name__}")
    if not response.strip():
        raise InputError("the answer is empty: give response= some text, or leave it out to generate one")
    _check_unicode("answer", response)
    tokenizer = processor.tokenizer
    answer = _unopened(prompt, response)
    if not answer.strip():
        raise InputError("the answer is empty: it only opens the thought that the prompt has opened")
    if opening is not None:
        alone = tokenizer(answer, add_special_tokens=False).input_ids
        return torch.tensor(alone if alone[: len(opening)] == opening else opening + alone, device="cpu")
    answer = _as_placed(prompt, answer)
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


def unclosed(prompt: Prompt, response: str | None) -> Iterator[str]:
    """A warning where the prompt opens a thought and the answer does not end it."""
    opened = THOUGHT.search(prompt.text)
    if response is None or opened is None or opened[2]:
        return
    end = f"{opened[1][0]}/{opened[1][1:]}"
    if end not in response:
        yield f"the prompt ends in {opened[1]}, and the answer holds no {end}: the model reads all of it as a thought"


def _unopened(prompt: Prompt, response: str) -> str:
    """The answer without the beginning of a thought that the prompt ends with."""
    opened = THOUGHT.search(prompt.text)
    if opened is None:
        return response
    begun = opened[0].rstrip()
    given = response.lstrip()
    return given.removeprefix(begun).removeprefix(opened[3]) if given.startswith(begun) else response


def _special_tokens(processor: Any, text: str) -> dict[str, bool]:
    start = getattr(processor.tokenizer, "bos_token", None)
    return {"add_special_tokens": not (start and text.startswith(start))}


def _as_placed(prompt: Prompt, response: str) -> str:
    """The answer with the white space that the chat template writes between its own text and an answer."""
    if prompt.written is None or prompt.written.chat.is_begun:
        return response
    answer = response.strip()
    message = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    try:
        whole = prompt.written.written([*prompt.written.chat.messages, message])
    except Exception:  # the template takes no answers
        return response
    before, found, _ = whole.removeprefix(prompt.text).partition(answer)
    placed = found and whole.startswith(prompt.text) and not before.strip()
    return before + response.lstrip() if placed and before else response


def _same_tokens(rendered: list[int], run: list[int], ids: list[int]) -> list[int]:
    """Positions in `ids` of the tokens rendered[run]: if these are the n-th of their kind there, the n-th in `ids`.

    `ids` is `rendered` with every image token expanded into its visual tokens.
    """
    wanted = [rendered[n] for n in run]
    nth = len(_occurrences(rendered[: run[-1] + 1], wanted)) if run else 0
    found = _occurrences(ids, wanted)
    if not 0 < nth <= len(found):
        raise InputError("the user's text was not found in the processed prompt: use text_set='all'")
    return list(range(found[nth - 1], found[nth - 1] + len(wanted)))


def _occurrences(ids: list[int], wanted: list[int]) -> list[int]:
    return [n for n in range(len(ids) - len(wanted) + 1) if ids[n : n + len(wanted)] == wanted]
