"""Chat templates: which one a processor has, what it writes for messages, and where the user's words stand in that.

A template takes the content of a message as a list of parts or as a text. Given the other form it fails, prints
Python's list, or leaves words out. So marks in place of all texts go through a template first: it takes the form of the
messages in which all marks come out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from dexar_fast.errors import InputError, reason
from dexar_fast.prompt import chat as chats
from dexar_fast.prompt.chat import Chat, Message

MARK = "dexarfast{}text"  # in the place of the n-th text
MARKS = re.compile(MARK.replace("{}", r"(\d+)"), re.IGNORECASE)
LIST = re.compile(r"""['"]text['"]: ['"]""" + MARKS.pattern, re.IGNORECASE)  # of parts, as Python or JSON prints it

TEXT_ALONE = (
    "the chat template takes text alone: the image token {!r} stands before it, on a line of its own; a model that was "
    "trained on another form needs the whole prompt written out, with the image token in it"
)

Span = tuple[int, int]
Form = Callable[[list[Message]], list[Message]]


@dataclass(frozen=True)
class Written:
    """Messages as a chat template writes them."""

    text: str
    own: list[Span] | None  # (start, end) of what the user says; None: the template changes it
    chat: Chat
    written: Callable[..., str]  # renders other messages with the same template, in the same form
    warnings: tuple[str, ...] = ()


def template_of(processor: Any) -> str | None:
    """The chat template of a processor, else that of its tokenizer; None where there is none.

    Raises:
        InputError: several templates, none of them called 'default'.
    """
    for owner in (processor, getattr(processor, "tokenizer", None)):
        found = getattr(owner, "chat_template", None)
        if isinstance(found, Mapping) and "default" not in found:
            raise InputError(
                f"the chat templates are called {', '.join(map(repr, found))}, and none 'default': set "
                f"processor.chat_template to one of them, as processor.chat_template = "
                f"templates[{next(iter(found), '')!r}]"
            )
        if found:
            return found["default"] if isinstance(found, Mapping) else found
    return None


def write(processor: Any, template: str, chat: Chat, token: str) -> Written:
    """A conversation as the template writes it, up to where the answer begins, or goes on.

    Args:
        token: stands for an image where the template takes text alone.
    Raises:
        InputError: a template that fails, or leaves out the images or what the user says.
    """
    failure: Exception | None = None
    for form in (_as_parts, partial(_words_as_text, token=token), partial(_as_text, token=token)):
        try:
            found = _in_form(partial(_apply, processor, template, form), chat, form, token)
        except InputError:
            raise
        except Exception as error:  # templates raise any kind of error
            failure = failure or error
        else:
            if found is not None:
                return found
    said = "leaves out words of the messages" if failure is None else f"fails ({reason(failure)})"
    raise InputError(f"the chat template {said}: write the whole prompt, with the image token {token!r} in it")


def _in_form(written: Callable[..., str], chat: Chat, form: Form, token: str) -> Written | None:
    """The conversation in one form of the messages; None if the template does not write all of its words."""
    how = {"continue_final_message": True} if chat.is_begun else {"add_generation_prompt": True}
    texts = chats.texts(chat.messages)
    everyone, users = _marked(chat.messages), _marked(chat.messages, chats.is_user)
    marked = written(everyone, **how)
    if not _is_complete(marked, len(texts)):
        return None
    asks, shows = (any(map(_has_image, messages)) for messages in (chat.messages, form(chat.messages)))
    if shows and token not in marked and marked == written(_marked(_without_images(chat.messages)), **how):
        raise InputError(
            f"the chat template leaves out the image: write the whole prompt, with the image token {token!r} in it"
        )
    text = written(chat.messages, **how)
    warnings = (TEXT_ALONE.format(token),) if asks and not shows else ()
    asked = marked if users == everyone else written(users, **how)
    return Written(
        text, _own(text, asked, [said for role, said in texts if chats.is_user(role)], token), chat, written, warnings
    )


def _apply(processor: Any, template: str, form: Form, messages: list[Message], **how: Any) -> str:
    owner = processor if hasattr(processor, "apply_chat_template") else processor.tokenizer
    return owner.apply_chat_template(form(messages), chat_template=template, tokenize=False, **how)


def _as_parts(messages: list[Message]) -> list[Message]:
    return messages


def _words_as_text(messages: list[Message], token: str) -> list[Message]:
    return [message if _has_image(message) else _joined(message, token) for message in messages]


def _as_text(messages: list[Message], token: str) -> list[Message]:
    return [_joined(message, token) for message in messages]


def _has_image(message: Message) -> bool:
    content = message["content"]
    return not isinstance(content, str) and any(part["type"] == "image" for part in content)


def _joined(message: Message, token: str) -> Message:
    parts = [f"{token}\n" if part["type"] == "image" else part["text"] for part in message["content"]]
    return {**message, "content": "".join(parts)}


def _without_images(messages: list[Message]) -> list[Message]:
    return [
        {**message, "content": [part for part in message["content"] if part["type"] == "text"]} for message in messages
    ]


def _marked(messages: list[Message], whose: Callable[[str], bool] = lambda role: True) -> list[Message]:
    """The messages with the n-th mark in place of the n-th text, for the roles that `whose` picks."""
    n = count()
    return [
        {**message, "content": [part | _mark(n) if part["type"] == "text" else part for part in message["content"]]}
        if whose(message["role"])
        else message
        for message in messages
    ]


def _mark(n: Iterator[int]) -> dict[str, str]:
    return {"text": MARK.format(next(n))}


def _is_complete(marked: str, texts: int) -> bool:
    """Whether the marks of all texts came out, and not in a printed list."""
    return {int(n) for n in MARKS.findall(marked)} == set(range(texts)) and LIST.search(marked) is None


def _own(text: str, marked: str, said: list[str], token: str) -> list[Span] | None:
    """The spans of what the user says, found by the template's text between the marks; without image tokens."""
    between = MARKS.split(marked)
    spans: list[Span] = []
    cursor = 0
    for fixed, n in zip(between[0::2], between[1::2], strict=False):
        words = said[int(n)].strip()
        start = text.find(words, cursor + len(fixed))
        if start < 0:
            return None
        spans += [(start + a, start + b) for a, b in split(words, token)]
        cursor = start + len(words)
    return spans


def split(text: str, token: str) -> list[Span]:
    """The spans of the text between image tokens, without the white space around it."""
    spans, cursor = [], 0
    for part in text.split(token):
        start = cursor + len(part) - len(part.lstrip())
        if part.strip():
            spans.append((start, start + len(part.strip())))
        cursor += len(part) + len(token)
    return spans
