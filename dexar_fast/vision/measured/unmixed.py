"""A model in which no token reads another: whatever attends gives zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, functional
from torch.overrides import TorchFunctionMode

SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax)
PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum)
_WEIGHTS = "_dexar_fast_weights"  # the attribute of a tensor that a softmax made


class Unmixed(TorchFunctionMode):
    """Inside it attention returns zeros: torch's own functions for it, and a softmax times values.

    A softmax times a parameter is no attention but a choice among learned rows, and stays.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return _nothing(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return torch.zeros_like(kwargs.get("query", *args[:1])), None
        found = func(*args, **kwargs)
        if not isinstance(found, Tensor):
            return found
        weights = [each for each in _tensors(args) if hasattr(each, _WEIGHTS)]
        if func in PRODUCTS:
            mixes = weights and not any(isinstance(each, Parameter) for each in _tensors(args))
            return torch.zeros_like(found) if mixes else found
        if func in SOFTMAX or any(each.numel() == found.numel() for each in weights):
            setattr(found, _WEIGHTS, True)
        return found


def _nothing(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    return query.new_zeros(*query.shape[:-1], value.shape[-1])


def _tensors(args: Iterable[Any]) -> list[Tensor]:
    flat = [one for each in args for one in (each if isinstance(each, list | tuple) else (each,))]
    return [each for each in flat if isinstance(each, Tensor)]
