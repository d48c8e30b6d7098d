"""Whether tokens of a prompt read those of the answer behind it."""

from __future__ import annotations

from torch import nn

from dexar_fast.errors import ModelError
from dexar_fast.model.attention import Call
from dexar_fast.model.masks import is_causal, reads_on


def check_prompt(module: nn.Module, call: Call, prompt: int) -> None:
    """Raises ModelError if one of the P prompt tokens of a call reads a token behind them."""
    keys = call.value.shape[2]
    if is_causal(module, call.mask, keys):
        return
    if reads_on(call.mask, prompt, keys):
        raise ModelError(
            f"{type(module).__name__} lets tokens of the prompt read the answer, which has to run in one "
            "forward with it: not supported"
        )
