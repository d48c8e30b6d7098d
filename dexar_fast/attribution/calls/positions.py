"""The positions of an answer's tokens, counted on from that of the last prompt token, as generate() counts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def of_chunk(last: Tensor, behind: int, columns: int) -> dict[str, Tensor]:
    """Of the next tokens.

    Args:
        last: [..., 1, 1] position of the prompt's last token. behind: how many tokens stand between it and these.
    """
    return {"position_ids": last + torch.arange(columns, device=last.device) + behind}


def of_whole(last: Tensor, prompt: int, keywords: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of a prompt and the answer so far, in one forward: the prompt's are the model's own.

    Args:
        prompt: its P tokens. keywords: the forward's; without positions, the layers' owner counts them, one by one.
    """
    own = keywords.get("position_ids")
    if own is None:
        return {}
    steps = torch.arange(1, own.shape[-1] - prompt + 1, device=last.device)
    answer = last[-len(own) :] + steps  # generate() may put an axis of its own before those of M-RoPE
    return {"position_ids": torch.cat([own[..., :prompt], answer], -1)}
