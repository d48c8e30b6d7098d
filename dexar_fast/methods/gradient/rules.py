"""The rules of AttnLRP (arXiv 2402.05602), by what a model's code calls: gradient times input is then relevance.

Inside `AttnLrpRules` each torch function on the way of the gradient keeps its values and takes the rule of its kind:

    linear in what it reads             its own gradient; what biases and constants add takes its share of the relevance
    softmax                             its own gradient
    an activation f                     f(x) / x in the place of f'(x)
    a product of two activations        half of the gradient for each
    what norms divide by, top-k weights are constants
    attention                           two products with a softmax between: values 1/2, queries and keys 1/4

A function of no kind has no rule: it is refused, and so is code with a backward of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from dexar_fast.errors import ModelError

Call = Callable[..., Any]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_LINEAR = (
    "linear add sub rsub neg sum mean softmax getitem setitem get view reshape view_as reshape_as flatten unflatten "
    "transpose swapaxes permute movedim moveaxis squeeze unsqueeze expand expand_as narrow select split chunk unbind "
    "cat concat stack hstack vstack roll flip contiguous clone to type type_as float double half bfloat16 "
    "repeat repeat_interleave tile index_select index_add index_copy gather take_along_dim scatter_add where "
    "copy conv1d pad masked_fill masked_scatter tril triu dropout requires_grad t"
)
_PRODUCTS = "mul multiply matmul mm bmm einsum"
_QUOTIENTS = "div true_divide"
_ACTIVATIONS = (
    "silu gelu relu relu6 leaky_relu elu selu mish hardswish tanh sigmoid logsigmoid log_sigmoid square softplus"
)
_CONSTANTS = "rsqrt sqrt std var norm vector_norm linalg_vector_norm topk"


class AttnLrpRules(TorchFunctionMode):
    """Inside the block torch's gradients are those of the rules. Raises ModelError where a function has none."""

    def __torch_function__(
        self, func: Call, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = args, kwargs or {}
        if not torch.is_grad_enabled() or not _with_graph(given):
            return func(*given[0], **given[1])
        rule = _RULES.get(_name(func))
        return _refused(func, given) if rule is None else rule(func, given)


def _name(func: Call) -> str:
    """Of a function, its method, its operator and its variant in place: one name."""
    return str(getattr(func, "__name__", func)).strip("_")


def _with_graph(values: Any) -> list[Tensor]:
    """The tensors that autograd leads back from."""
    return [x for x in tree_leaves(values) if isinstance(x, Tensor) and x.requires_grad]


def _refused(func: Call, given: Arguments) -> Any:
    found = func(*given[0], **given[1])
    if _with_graph(found):
        raise ModelError(
            f"AttnLRP has no rule for {_name(func)}(), through which this model's answer depends on its input"
        )
    return found


def _as_it_is(func: Call, given: Arguments) -> Any:
    return func(*given[0], **given[1])


def _constant(func: Call, given: Arguments) -> Any:
    return tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, func(*given[0], **given[1]))


def _product(func: Call, given: Arguments) -> Any:
    found = func(*given[0], **given[1])
    if len(_with_graph(given)) > 1:
        found.register_hook(lambda gradient: gradient / 2)
    return found


def _quotient(func: Call, given: Arguments) -> Any:
    (read, by, *others), keywords = given
    return func(read, by.detach() if isinstance(by, Tensor) else by, *others, **keywords)


def _activation(func: Call, given: Arguments) -> Any:
    (read, *others), keywords = given
    if func.__name__.endswith("_") or keywords.get("inplace"):
        raise ModelError(f"AttnLRP has no rule for an activation in place, {func.__name__}()")
    return _Ratio.apply(read, func(read.detach(), *others, **keywords))


def _power(func: Call, given: Arguments) -> Any:
    """A square is an activation; what norms take of a variance is a constant."""
    exponent = given[0][1] if len(given[0]) > 1 else given[1]["exponent"]
    return (_activation if exponent >= 1 else _constant)(func, given)


def _scaled(func: Call, given: Arguments) -> Any:
    """What only divides its input, or each of its numbers by some constant."""
    return _Ratio.apply(given[0][0], _constant(func, given))


class _Ratio(Function):
    """f(x), whose gradient is f(x) / x: an input of 0 gets none."""

    @staticmethod
    def forward(ctx: Any, read: Tensor, found: Tensor) -> Tensor:
        ctx.save_for_backward(read, found)
        ctx.ratio = None
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        if ctx.ratio is None:  # once for all tokens
            read, found = ctx.saved_tensors
            ctx.ratio = torch.where(read == 0, 0, found / read)
        return gradients[0] * ctx.ratio, None


OWN = _Ratio._backward_cls  # the kind of its nodes in a graph


def _attention(func: Call, given: Arguments) -> Any:
    (query, key, value, *others), keywords = given
    return func(_shared(query, 4), _shared(key, 4), _shared(value, 2), *others, **keywords)


def _shared(read: Tensor, parts: int) -> Tensor:
    """The same numbers, with one part of the gradient."""
    if not read.requires_grad:
        return read
    found = read.view_as(read)
    found.register_hook(lambda gradient: gradient / parts)
    return found


def _layer_norm(func: Call, given: Arguments) -> Any:
    return _centred(*given[0], **given[1])


def _centred(
    read: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Layer norm with a constant deviation."""
    axes = tuple(range(-len(shape), 0))
    centred = read - read.mean(axes, keepdim=True)
    normed = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt().detach()
    weighted = normed if weight is None else normed * weight
    return weighted if bias is None else weighted + bias


_RULES: Mapping[str, Callable[[Call, Arguments], Any]] = {
    **dict.fromkeys(_LINEAR.split(), _as_it_is),
    **dict.fromkeys(_PRODUCTS.split(), _product),
    **dict.fromkeys(_QUOTIENTS.split(), _quotient),
    **dict.fromkeys(_ACTIVATIONS.split(), _activation),
    **dict.fromkeys(_CONSTANTS.split(), _constant),
    "pow": _power,
    "rms_norm": _scaled,
    "normalize": _scaled,
    "layer_norm": _layer_norm,
    "scaled_dot_product_attention": _attention,
}
