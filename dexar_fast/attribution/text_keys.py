"""Which keys count as text: TXT of METHOD.md section 3, the text_set knob, and the authors' quirk."""

from __future__ import annotations

import torch
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.settings import Settings


def text_mask(settings: Settings, prompt: int, length: int, visual: Tensor, content: Tensor | None) -> Tensor:
    """[P + T] bool, True where a key counts as text for a prompt of P tokens and `length` = P + T in all.

    Args:
        visual: [N] positions. content: positions of the user's own text, needed for text_set="content".
    Raises:
        InputError: text_set="content" without a tokenizer to find the user's text with.
    """
    text = torch.ones(length, dtype=torch.bool, device="cpu")
    text[visual] = False
    if settings.mode == "official":
        _follow_the_authors(text, prompt, visual)
    return text & _chosen(settings.text_set, prompt, length, content)


def _follow_the_authors(text: Tensor, prompt: int, visual: Tensor) -> None:
    """Their code drops the first prompt token behind the image, and counts the last one as text whatever it is."""
    behind = int(visual[-1]) + 1
    if behind < prompt:
        text[behind] = False
    text[prompt - 1] = True


def _chosen(text_set: str, prompt: int, length: int, content: Tensor | None) -> Tensor:
    position = torch.arange(length, device="cpu")
    if text_set == "prompt":
        return position < prompt
    if text_set == "generated":
        return position >= prompt
    if text_set == "content":
        if content is None:
            raise InputError("text_set='content' needs the prompt's text: use explain() with a processor")
        return (position >= prompt) | torch.isin(position, content)
    return torch.ones(length, dtype=torch.bool, device="cpu")
