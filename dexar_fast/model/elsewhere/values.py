"""The values of the image's keys in the first call that reads them: what the decoder gets of the image."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.model.attention import Call, Side
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.elsewhere.begun import ALONE, first_tokens
from dexar_fast.model.elsewhere.tracer import Begun, CallsWatcher
from dexar_fast.model.prefill import BegunPrompt


def reader(decoder: Decoder, begun: BegunPrompt) -> tuple[nn.Module, Tensor]:
    """The first attention that reads the image, and the places [N] of the image's keys among its own."""
    assert decoder.sides is not None  # it was found by its calls
    own = bool(begun.visual.max() >= begun.beside)
    pairs = zip(decoder.attentions, decoder.sides, strict=True)
    module, side = next(pair for pair in pairs if pair[1] is Side.BOTH or (pair[1] is Side.OWN) == own)
    if side is Side.BOTH:  # the decoder's own keys come first there
        return module, (begun.visual + begun.prompt) % len(begun.labels)
    return module, begun.visual - begun.beside * own


@torch.no_grad()
def values(model: Any, inputs: Mapping[str, Any], decoder: Decoder, module: nn.Module, keys: Tensor) -> Tensor:
    """[N, heads * d] float32 on the CPU: the values that this attention reads at these keys [N] of a prompt's."""
    watching = _Values(model, inputs, decoder, module)
    with watching.watching(), suppress(Begun):
        first_tokens(model, inputs, ALONE)
    return watching.found[0].movedim(1, 0)[keys.to(watching.found.device)].flatten(1).float().cpu()


class _Values(CallsWatcher):
    """Ends a generate() where an attention gets its values [1, heads, keys, d]."""

    found: Tensor

    def __init__(self, model: nn.Module, inputs: Mapping[str, Any], decoder: Decoder, module: nn.Module) -> None:
        super().__init__(model, inputs, decoder)
        self._module = module

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        if module is self._module:
            self.found = call.value
            raise Begun
        return super().attention(module, output, call)
