"""The request of an explanation, asked again: its pictures, its prompt, its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dexar_fast.errors import InputError
from dexar_fast.generation.asked import Asked
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
    read = request.read(setup.processor, images, prompt, None, with_content=False)
    return replace(read, targets=explanation.token_ids)
