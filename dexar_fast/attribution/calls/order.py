"""Whether tokens of a prompt read those of the answer behind it."""

from __future__ import annotations

from torch import nn

from dexar_fast.errors import ModelError
from dexar_fast.model.attention import Call, attendable, is_causal


def check_prompt(module: nn.Module, call: Call, prompt: int) -> None:
    """Raises ModelError if one of the P prompt tokens of a call reads a token behind them."""
    keys = call.value.shape[2]
    if is_causal(module, call.mask, keys):
        return
    mask = call.mask
    if mask is None or bool(attendable(mask, keys, keys, mask.device)[:, :prompt, prompt:].any()):
        raise ModelError(
            f"{type(module).__name__} lets tokens of the prompt read the answer, which has to run in one "
            "forward with it: not supported"
        )
