"""The visual embeddings: what the decoder reads of the pictures, as leaves of autograd's graph.

They are the visual rows of what the first layer reads, positions among them where a model adds these. Models with a
deepstack add more features of each visual token behind some of the first layers; these are leaves of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dexar_fast.methods.base import Asked
from dexar_fast.model.attention import watcher
from dexar_fast.model.decoder import first_layer

DEEPSTACK = "deepstack_visual_embeds"  # a list of [N, d], by which transformers' models of that kind are known

Change = Callable[[int, Tensor], Tensor]
"""From a leaf's number and the model's own values [N, ...] to those to go on with."""


class Entry:
    """Makes leaves of the visual embeddings in the first forward inside `hooked`.

    Attributes:
        leaves: [N, ...] each; the first is what the first layer reads.
    """

    def __init__(self, asked: Asked, change: Change) -> None:
        self._asked = asked
        self._change = change
        self._layer = first_layer(asked.model, asked.decoder)
        self._deep: list[Tensor] = []
        self._first: Tensor | None = None

    @property
    def leaves(self) -> list[Tensor]:
        return [] if self._first is None else [self._first, *self._deep]

    @contextmanager
    def hooked(self) -> Iterator[Entry]:
        """Watches this thread's forwards inside the block."""
        holders = [module for module in self._asked.model.modules() if self._layer in _members(module)]
        hooks = [module.register_forward_pre_hook(self._deepstack, with_kwargs=True) for module in holders]
        hooks.append(self._layer.register_forward_pre_hook(self._enter, with_kwargs=True))
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def _deepstack(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        given = kwargs.get(DEEPSTACK)
        if watcher.get() is None or given is None or self._deep:
            return None
        self._deep = [self._leaf(1 + i, features) for i, features in enumerate(given)]
        return args, kwargs | {DEEPSTACK: [*self._deep]}

    def _enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if watcher.get() is None:
            return None
        entered = self._entered((args[0] if args else kwargs["hidden_states"]).detach())
        return ((entered, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": entered})

    def _entered(self, states: Tensor) -> Tensor:
        """States that are in the graph: those of a later forward, too, so that rules see what is no weight."""
        if self._first is not None:
            return states.requires_grad_()
        axis = self._asked.decoder.lens.axis
        at = self._asked.visual.to(states.device).clone()  # no graph takes what inference_mode() made
        self._first = self._leaf(0, states.index_select(axis, at).movedim(axis, 0))
        return states.index_copy(axis, at, self._first.movedim(0, axis))

    def _leaf(self, number: int, values: Tensor) -> Tensor:
        return self._change(number, values.detach()).requires_grad_()


def _members(module: nn.Module) -> set[nn.Module]:
    """The layers in the module's own lists."""
    return {layer for child in module.children() if isinstance(child, nn.ModuleList) for layer in child}
