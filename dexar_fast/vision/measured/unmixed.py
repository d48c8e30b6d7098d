"""A model in which no token reads another: attention of tokens to each other gives zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, functional
from torch.overrides import TorchFunctionMode

SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax)
PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum)
CONVOLUTIONS = (functional.conv2d, functional.conv3d)
_WEIGHTS = "_dexar_fast_weights"  # the attribute of a tensor that a softmax made


class Unmixed(TorchFunctionMode):
    """Inside it attention returns zeros: torch's own functions for it, and a softmax times values.

    Where other queries than there are keys attend, they pool: a few neighbours, which is a place, or all, which is
    none. That returns the mean of the values. A softmax times a parameter is a choice among learned rows, and stays.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in CONVOLUTIONS and not kwargs and _is_of_one_patch(*args):
            return _product_of(*args[:3])
        if func is functional.scaled_dot_product_attention:
            return _attended(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return torch.zeros_like(kwargs.get("query", *args[:1])), None
        found = func(*args, **kwargs)
        if not isinstance(found, Tensor):
            return found
        weights = [each for each in _tensors(args) if hasattr(each, _WEIGHTS)]
        if func in PRODUCTS and weights:
            return found if any(isinstance(each, Parameter) for each in _tensors(args)) else _product(func, args, found)
        if func in SOFTMAX or any(each.numel() == found.numel() for each in weights):
            setattr(found, _WEIGHTS, True)
        return found


def _is_of_one_patch(
    hidden: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, *rest: Any
) -> bool:
    """Whether each input is as large as the kernel: then it is a product, which torch computes slowly as this."""
    return hidden.shape[1:] == weight.shape[1:] and padding in (0, (0, 0), (0, 0, 0), "valid")


def _product_of(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What that convolution returns: [N, channels, 1, ...]."""
    found = functional.linear(hidden.flatten(1), weight.flatten(1), bias)
    return found.unflatten(1, (-1, *[1] * (hidden.ndim - 2)))


def _attended(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """What torch's attention is to return."""
    if query.shape[-2] == key.shape[-2]:
        return query.new_zeros(*query.shape[:-1], value.shape[-1])
    return functional.scaled_dot_product_attention(torch.zeros_like(query), key, value, *args, **kwargs)


def _product(func: Callable[..., Any], args: tuple[Any, ...], found: Tensor) -> Tensor:
    """What the product of a softmax and values is to return."""
    place = next((n for n, each in enumerate(args) if hasattr(each, _WEIGHTS)), 0)
    weights = args[place]
    if func is torch.einsum or weights.shape[-1] == weights.shape[-2]:
        return torch.zeros_like(found)
    read = (weights > 0).to(weights)
    keys = -1 if place == 0 else -2  # the values stand before the weights, which are turned then
    return func(*args[:place], read / read.sum(keys, keepdim=True), *args[place + 1 :])


def _tensors(args: Iterable[Any]) -> list[Tensor]:
    flat = [one for each in args for one in (each if isinstance(each, list | tuple) else (each,))]
    return [each for each in flat if isinstance(each, Tensor)]
