"""Hides visual tokens from the decoder: the mean of all of them stands in their place."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.errors import InputError
from dexar_fast.metrics.maps import Mask
from dexar_fast.model.decoder import Decoder, first_layer
from dexar_fast.vision.grid import Grid, Size

HIDDEN = "hidden_visual_tokens"  # an input of the hooked model: bool [B, N]


def hidden_tokens(grids: Sequence[Grid], sizes: Sequence[Size], hidden: Sequence[Mask], visual: int) -> Tensor:
    """[1, N] bool: the visual tokens whose centres are hidden; those outside all grids (newlines) never are.

    Args:
        sizes: (width, height) of each picture. hidden: its mask [height, width], of any size. visual: N.
    Raises:
        InputError: it is not known where the visual tokens lie.
    """
    if not grids:
        raise InputError("fill 'tokens' hides visual tokens, and where these lie in the pictures is not known")
    found = torch.zeros(1, visual, dtype=torch.bool)
    for grid in grids:
        mask, (width, height) = torch.from_numpy(hidden[grid.image]), sizes[grid.image]
        left, top, right, bottom = grid.box or (0, 0, width, height)
        down = _pixels(grid.rows, top / height, bottom / height, mask.shape[0])
        across = _pixels(grid.columns, left / width, right / width, mask.shape[1])
        found[0, torch.from_numpy(grid.cells)] = mask[down[:, None], across]
    return found


def _pixels(cells: int, low: float, high: float, pixels: int) -> Tensor:
    """[cells]: the pixel under the centre of each cell; the nearest where it lies beyond the picture."""
    centres = low + (torch.arange(cells) + 0.5) / cells * (high - low)
    return (centres * pixels).long().clamp(0, pixels - 1)


@contextmanager
def hiding(model: nn.Module, decoder: Decoder, visual: Tensor) -> Iterator[None]:
    """Inside the block the model takes `HIDDEN` beside its inputs, in any thread.

    Raises:
        InputError: a model that hands its pictures to later layers, too, where they would still be seen.
    """
    if getattr(getattr(model.config, "vision_config", None), "deepstack_visual_indexes", None):
        raise InputError(
            "fill 'tokens' hides what enters the first layer, and this model shows its pictures to later ones"
        )
    asked = threading.local()

    def take(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        asked.hidden = kwargs.pop(HIDDEN, None)
        return args, kwargs

    def replace(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        hidden, asked.hidden = getattr(asked, "hidden", None), None
        if hidden is None:
            return None
        states = args[0] if args else kwargs["hidden_states"]
        changed = _without(states, visual.to(states.device), hidden.to(states.device))
        return ((changed, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": changed})

    handles = [
        model.register_forward_pre_hook(take, with_kwargs=True, prepend=True),
        first_layer(model, decoder).register_forward_pre_hook(replace, with_kwargs=True, prepend=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without(states: Tensor, visual: Tensor, hidden: Tensor) -> Tensor:
    """[B, P, d] in which the mean of the N visual rows stands for those that are hidden, bool [B, N]."""
    rows = states[:, visual]
    changed = states.clone()
    changed[:, visual] = torch.where(hidden[..., None], rows.mean(1, keepdim=True), rows)
    return changed
