"""The request of an explanation, asked again: its pictures, its prompt, its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from PIL import Image

from dexar_fast.errors import InputError
from dexar_fast.generation.asked import Asked
from dexar_fast.generation.planning import check_method
from dexar_fast.generation.runner import Runner
from dexar_fast.generation.setup import Setup
from dexar_fast.prompt import request
from dexar_fast.prompt.request import Request
from dexar_fast.results.schema import Result


@contextmanager
def answered(setup: Setup, explanation: Result, inputs: Mapping[str, Any] | None = None) -> Iterator[Asked]:
    """The request that an explanation answers; inside the block the model is on loan.

    Args:
        inputs: those that it was made from; None reads its prompt again, as `explain` did.
    Raises:
        InputError: no Explanation; no picture or no prompt was kept; a video; inputs of another length.
    """
    if not isinstance(explanation, Result):
        raise InputError(f"an Explanation is due, not a {type(explanation).__name__}")
    check_method(setup)
    asked = _request(setup, explanation, inputs)
    if len(asked.ids) != explanation.metadata.get("prompt_tokens", len(asked.ids)):
        raise InputError(
            f"the prompt has {len(asked.ids)} tokens with this processor, and had "
            f"{explanation.metadata['prompt_tokens']} when it was explained: use the explainer that made it"
        )
    if "pixel_values_videos" in asked.inputs:
        raise InputError("parts of images are hidden; the prompt holds a video")
    with Runner(setup, asked, {}, None).answered() as answer:
        yield answer


def _request(setup: Setup, explanation: Result, inputs: Mapping[str, Any] | None) -> Request:
    if len(explanation) == 0:
        raise InputError("the answer holds no tokens: there is nothing to score")
    if not explanation.images:
        raise InputError("hiding parts of a picture takes the picture: this explanation kept none")
    images, prompt = list(explanation.images), explanation.metadata.get("prompt")
    if inputs is not None:
        return request.given(inputs, images, explanation.token_ids)
    if not isinstance(prompt, str):
        raise InputError("this explanation was made from inputs, which it does not hold: pass inputs=")
    read = _read_again(setup, images, prompt, explanation.metadata.get("prompt_tokens"))
    return replace(read, targets=explanation.token_ids)


def _read_again(setup: Setup, images: list[Image.Image], prompt: str, tokens: int | None) -> Request:
    """The rendered prompt with its pictures as they were read: each by itself, or as those of one conversation.

    LLaVA-OneVision cuts pictures of one conversation otherwise; a chat template has passed them on so, a text has not.
    """

    def read(together: bool) -> Request:
        return request.read(setup.processor, images, prompt, None, with_content=False, together=together)

    found = request.or_error(read, False)
    if len(images) > 1 and not _fits(found, tokens):
        nested = request.or_error(read, True)
        found = nested if _fits(nested, tokens) else found
    if isinstance(found, Exception):
        raise found
    return found


def _fits(read: Request | Exception, tokens: int | None) -> bool:
    return isinstance(read, Request) and tokens in (None, len(read.ids))
