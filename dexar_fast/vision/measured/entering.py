"""What enters a model's decoder at its visual tokens, when no token reads another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.vision.measured.unmixed import Unmixed


class Entered(Exception):
    """All that was asked for has entered the decoder."""


@torch.no_grad()
def entering(model: Any, layer: nn.Module, inputs: Mapping[str, Any], positions: Tensor) -> Tensor:
    """[N, d] float32 on the CPU: what the layer gets at these positions [N] of the prompt.

    Args:
        layer: of the decoder, whose first argument is [1, P, ..., d].
    """
    found: list[Tensor] = []
    with Unmixed(), _stopped_at(layer, found):
        model(**inputs, use_cache=False)
    if not found:
        raise LookupError("the layer did not run")
    states = found[0]
    return states[0, positions.to(states.device)].flatten(1).float().cpu()


@contextmanager
def _stopped_at(layer: nn.Module, found: list[Tensor]) -> Iterator[None]:
    """Inside the block a forward ends where it reaches the layer, and `found` holds what the layer got."""

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)))
        raise Entered

    with ExitStack() as stack:
        stack.callback(layer.register_forward_pre_hook(stop, with_kwargs=True).remove)
        try:
            yield
        except Entered:
            pass
