"""How servers are asked for the log-probabilities of a given answer, and how they tell them.

vLLM tells those of a chat's prompt, whose last message may be an unfinished answer (`prompt_logprobs`,
`continue_final_message`). SGLang tells those of a plain prompt's tokens (`/generate`, `input_token_logprobs`). Both
write the prompt's tokens in order, so the answer's are the last.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

SPACE = "\u2581"  # what SentencePiece writes for a space


@dataclass(frozen=True)
class Row:
    """A token of the prompt. The first has no probability."""

    text: str
    probability: float | None


@dataclass(frozen=True)
class Server:
    """A kind of server.

    Attributes:
        body: model, picture, prompt, answer -> the request. rows: what the server answers -> the prompt's tokens;
            LookupError, TypeError or ValueError where it is something else.
    """

    path: str
    body: Callable[[str, Image.Image, str, str], dict[str, Any]]
    rows: Callable[[Any], list[Row]]


def _vllm_body(model: str, picture: Image.Image, prompt: str, answer: str) -> dict[str, Any]:
    asked = [{"type": "image_url", "image_url": {"url": _data(picture)}}, {"type": "text", "text": prompt}]
    return {
        "model": model,
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}],
        "add_generation_prompt": False,
        "continue_final_message": True,
        "prompt_logprobs": 1,
        "max_tokens": 1,
        "temperature": 0,
    }


def _vllm_rows(answered: Any) -> list[Row]:
    return [_vllm_row(entry) for entry in answered["prompt_logprobs"]]


def _vllm_row(entry: Any) -> Row:
    """Of the token itself and the likeliest: where they are two, the token's rank is the higher number."""
    if entry is None:
        return Row("", None)
    own = max(entry.values(), key=lambda each: each["rank"])
    return _row(own["decoded_token"], own["logprob"])


def _sglang_body(model: str, picture: Image.Image, prompt: str, answer: str) -> dict[str, Any]:
    return {
        "model": model,
        "text": prompt + answer,
        "image_data": _data(picture),
        "sampling_params": {"max_new_tokens": 0, "temperature": 0},
        "return_logprob": True,
        "logprob_start_len": 0,
        "return_text_in_logprobs": True,
    }


def _sglang_rows(answered: Any) -> list[Row]:
    return [_row(text, logprob) for logprob, _, text in answered["meta_info"]["input_token_logprobs"]]


def _row(text: Any, logprob: Any) -> Row:
    probability = None if logprob is None else min(1.0, math.exp(float(logprob)))
    return Row(str(text or "").replace(SPACE, " "), probability)


def _data(picture: Image.Image) -> str:
    """As data:image/png;base64,..., lossless."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


SERVERS = {
    "vllm": Server("/v1/chat/completions", _vllm_body, _vllm_rows),
    "sglang": Server("/generate", _sglang_body, _sglang_rows),
}
