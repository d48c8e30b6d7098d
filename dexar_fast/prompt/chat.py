"""Reads chat messages: checks them, takes their pictures out, makes each content a list of parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from PIL import Image

from dexar_fast.errors import ImageError, InputError
from dexar_fast.vision.images import load_image

Message = dict[str, Any]  # "role", "content": a list of {"type": "image"} and {"type": "text", "text": ...}; other keys
IMAGES = ("image", "image_url")  # the types of a part with a picture
USER, ASSISTANT = ("user", "human"), ("assistant", "model")  # what templates call them; also <|User|> and the like
PICTURE = "picture"  # the key of the picture in a part that was read
SOURCES = ("image", "url", "path", "image_url", "base64")  # where a part holds its picture
SIZES = ("min_pixels", "max_pixels", "resized_height", "resized_width")  # of a picture, for qwen_vl_utils


@dataclass(frozen=True)
class Chat:
    """A conversation, and its pictures in the order in which it shows them."""

    messages: list[Message]
    images: list[Image.Image]

    @property
    def is_begun(self) -> bool:
        """Whether the prompt begins the answer: its last message is the assistant's."""
        return _plain_role(self.messages[-1]["role"]) in ASSISTANT


def is_chat(prompt: Any) -> bool:
    """Whether a prompt is one conversation, a list of messages."""
    return isinstance(prompt, list | tuple) and len(prompt) > 0 and isinstance(_as_mapping(prompt[0]), Mapping)


def is_user(role: str) -> bool:
    """Whether a role is the user's."""
    return _plain_role(role) in USER


def _plain_role(role: str) -> str:
    return role.strip("<|>").lower()


def read(messages: Sequence[Any]) -> list[Message]:
    """Messages of role and content, each content a list of parts; a part of an image holds its picture, or None.

    Raises:
        InputError: no messages of text and images, or nothing that the user says.
    """
    found = [_message(message, n) for n, message in enumerate(messages)]
    if not any(text.strip() for role, text in texts(found) if is_user(role)):
        raise InputError("the prompt is empty: ask the model something")
    return found


def texts(messages: list[Message]) -> list[tuple[str, str]]:
    """The role and the text of each part of text."""
    return [
        (message["role"], part["text"]) for message in messages for part in message["content"] if part["type"] == "text"
    ]


def shown(messages: list[Message], images: list[Image.Image], token: str) -> Chat:
    """The conversation, with `images` in their places.

    A place is a part of type "image" without a picture, or the model's image token in a text. If the messages
    hold neither places nor pictures, the images come before the user's first words.

    Raises:
        InputError: more or fewer places than images. ImageError: no image, or a picture that cannot be read.
    """
    sources = [source for message in messages for source in _sources(message, token)]
    if not sources:
        messages, sources = _before_the_first(messages, len(images)), [None] * len(images)
    places = sum(source is None for source in sources)
    if places != len(images):
        raise InputError(
            f"the messages have places for {places} image(s), and {len(images)} came beside them: give each part of "
            "type 'image' its picture, or pass as many images"
        )
    beside = iter(images)
    pictures = [next(beside) if source is None else load_image(source) for source in sources]
    if not pictures:
        raise ImageError("no image: pass a path, a PIL image or an array, or put one into the messages")
    plain = [{**message, "content": [_plain(part) for part in message["content"]]} for message in messages]
    return Chat(plain, pictures)


def _before_the_first(messages: list[Message], images: int) -> list[Message]:
    """The messages with places for so many images before the user's first words."""
    first = next(n for n, message in enumerate(messages) if is_user(message["role"]))
    content = [{"type": "image", PICTURE: None}] * images + messages[first]["content"]
    return [*messages[:first], {**messages[first], "content": content}, *messages[first + 1 :]]


def _as_mapping(thing: Any) -> Any:
    """A message or a part that is a data class or a model of pydantic, as the mapping that it stands for."""
    if is_dataclass(thing) and not isinstance(thing, type):
        return {field.name: getattr(thing, field.name) for field in fields(thing)}
    return thing.model_dump() if callable(getattr(thing, "model_dump", None)) else thing


def _message(message: Any, n: int) -> Message:
    message = _as_mapping(message)
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InputError(f"message {n} must be {{'role': ..., 'content': ...}}, not {message!r:.80}")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if content is None and message.get("tool_calls"):  # tool calls may come without words
        content = []
    if not isinstance(content, list | tuple):
        raise InputError(f"the content of message {n} must be a text, or a list of parts, not {content!r:.80}")
    said = {key: value for key, value in message.items() if value is not None}
    return {**said, "content": [_part(part, n) for part in content]}


def _part(part: Any, n: int) -> dict[str, Any]:
    part = _as_mapping(part)
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    sizes = [name for name in SIZES if isinstance(part, Mapping) and part.get(name) is not None]
    if kind in IMAGES and sizes:
        raise InputError(
            f"message {n} asks for a picture of another size ({', '.join(sizes)}), which processors do not read: give "
            "it resized, or set the processor's own size"
        )
    if kind in IMAGES:
        return {"type": "image", PICTURE: _source(part)}
    if kind in ("video", "audio"):
        raise InputError(f"message {n} holds {kind}: messages hold text and images; use explain_inputs() for the rest")
    raise InputError(
        f"message {n} holds the part {part!r:.80}: pass {{'type': 'text', 'text': ...}} or {{'type': 'image', ...}}"
    )


def _source(part: Mapping[str, Any]) -> Any:
    """The picture of a part; None where it only has a place for one."""
    source = next((part[name] for name in SOURCES if part.get(name) is not None), None)
    if isinstance(source, Mapping):  # OpenAI's
        source = source.get("url", source)
    return f"data:;base64,{source}" if source is not None and source is part.get("base64") else source


def _sources(message: Message, token: str) -> Iterator[Any]:
    """The pictures of a message, None for a place without one."""
    for part in message["content"]:
        if part["type"] == "image":
            yield part[PICTURE]
        else:
            yield from [None] * part["text"].count(token)


def _plain(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != PICTURE}
