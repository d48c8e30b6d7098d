"""What a decoder layer's MLP reads: the output of the norm behind its attention, found by watching the layer run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from dexar_fast.errors import ModelError
from dexar_fast.model.attention import watcher


class MlpInput:
    """Begins autograd's graph at what a layer's MLP reads, in the layer's first forward.

    The norm is the first module that runs behind the attention and whose very output another module of the layer reads.
    The norm of an attention's output (Gemma 2) is none: a sum follows it.
    """

    def __init__(self, layer: nn.Module, attention: nn.Module) -> None:
        self._layer = layer
        self._attention = attention
        self._behind: set[nn.Module] = set()  # modules of the layer that began behind its attention
        self._attended = self._is_read = False
        self._found: Tensor | None = None

    @property
    def activations(self) -> Tensor:
        """[1, P, d]; raises ModelError where no norm lies between the attention and an MLP."""
        if self._found is None or not self._is_read:
            raise ModelError(
                f"{type(self._layer).__name__} has no norm between its attention and its MLP, whose output this method "
                "is defined on"
            )
        return self._found

    @contextmanager
    def hooked(self) -> Iterator[MlpInput]:
        """Watches this thread's forwards inside the block."""
        with ExitStack() as stack:
            for child in self._layer.children():
                stack.callback(child.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
                stack.callback(child.register_forward_hook(self._leave).remove)
            stack.callback(self._attention.register_forward_hook(self._attend).remove)
            yield self

    def _attend(self, module: nn.Module, args: Any, output: Any) -> None:
        self._attended = self._attended or watcher.get() is not None

    def _enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if watcher.get() is not None and self._attended:
            self._behind.add(module)
            self._is_read = self._is_read or any(x is self._found for x in (*args, *kwargs.values()) if x is not None)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        if watcher.get() is None or self._is_read or module not in self._behind or not isinstance(output, Tensor):
            return output
        self._found = output if output.requires_grad else output.detach().requires_grad_()
        return self._found
