"""What enters a model's decoder at its visual tokens, when no token reads another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.vision.measured.unmixed import Unmixed


class Unreadable(Exception):
    """What enters the decoder cannot be read; the message says why."""


class _Entered(Exception):
    """The layer has been reached."""


def layers(model: Any) -> nn.ModuleList:
    """The decoder layers of a model, those without attention too. Raises Unreadable."""
    count = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise Unreadable("its decoder has no list of layers")


@torch.no_grad()
def entering(model: Any, layer: nn.Module, inputs: Mapping[str, Any], positions: Tensor) -> Tensor:
    """[N, d] float32 on the CPU: what the layer gets at these positions [N] of the prompt.

    Args:
        layer: of the decoder; its first tensor is that of the hidden states.
    Raises:
        Unreadable: the layer does not run, or gets no row for each token of the prompt.
    """
    found: list[Tensor] = []
    with Unmixed(), _stopped_at(layer, found):
        model(**inputs, use_cache=False)
    if not found:
        raise Unreadable("its forward does not reach the layers of its decoder")
    length = inputs["input_ids"].shape[1]
    axes = [axis for axis, size in enumerate(found[0].shape[:-1]) if size == length]
    if not axes:
        raise Unreadable("its decoder gets another number of tokens than the prompt has")
    return found[0].movedim(axes[0], 0)[positions.to(found[0].device)].flatten(1).float().cpu()


@contextmanager
def _stopped_at(layer: nn.Module, found: list[Tensor]) -> Iterator[None]:
    """Inside the block a forward ends where it reaches the layer, and `found` holds what the layer got."""

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)))
        raise _Entered

    hook = layer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield
    except _Entered:
        pass
    finally:
        hook.remove()
