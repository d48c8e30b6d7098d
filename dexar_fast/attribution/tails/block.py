"""The layer-tail VJP without autograd: a few matrix products over all C queries, and element-wise steps between them.

    m = h + n1(o_proj(a));   y = n(m);   z = act(gate(y)) * up(y) or act(up(y));   x = m + n2(down(z))
    o = f(<norm(x), W[v]>)

    dx = norm'(x)^T (f' W[v]);   dm = dx + n'(m)^T (the MLP's VJP of n2'^T dx);   u = d o / d a = o_proj^T n1'^T dm

n1 and n2 are the identity in most families; f is in all that neither cap nor scale their logits. If attention and MLP
are parallel, x = h + n1(o_proj(a)) + (what does not depend on a) and dm = dx. The forward computes all else anyway,
biases included: nothing is recorded. A block with a gate, I intermediate features and elements of b bytes takes
2 C d (H D + 3 I) operations; (H D + 3 I) d b bytes of weights, read once, and about 6 C (d + I) b of what was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, layer_norm, nn, rms_norm

from dexar_fast.attribution.tails.vjp import gated_vjp, norm_vjp
from dexar_fast.errors import ModelError

Seen = Mapping[str, Tensor]  # of one forward, for the C queries: "input", and by the names of Block.inputs and .outputs
QUICK = 1.702  # quick_gelu(x) = x sigmoid(1.702 x) = silu(1.702 x) / 1.702

PLAIN_VJPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # act'(x) dz from dz and x
    "silu": torch.ops.aten.silu_backward,
    "gelu": torch.ops.aten.gelu_backward,
    "gelu_tanh": partial(torch.ops.aten.gelu_backward, approximate="tanh"),
    "relu": lambda grad, x: torch.ops.aten.threshold_backward(grad, x, 0),
    "quick_gelu": lambda grad, x: torch.ops.aten.silu_backward(grad, QUICK * x),
}
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {  # act(x)
    "silu": torch.ops.aten.silu,
    "gelu": torch.ops.aten.gelu,
    "gelu_tanh": partial(torch.ops.aten.gelu, approximate="tanh"),
    "relu": torch.ops.aten.relu,
    "quick_gelu": lambda x: torch.ops.aten.silu(QUICK * x) / QUICK,
}


@dataclass(frozen=True)
class Norm:
    """An RMSNorm or, if centred, a LayerNorm."""

    module: nn.Module
    eps: float
    centred: bool = False
    offset: float = 0.0  # what the module adds to its weight before it scales by it

    def vjp(self, x: Tensor, grad: Tensor, residual: Tensor | None = None, *, backend: str) -> Tensor:
        """residual + norm'(x)^T grad, [C, d] each, in float32 or better."""
        return norm_vjp(x, grad, self.scale(x), self.eps, residual, centred=self.centred, backend=backend)

    def plain(self, x: Tensor) -> Tensor:
        """[C, d] in float32 or better: the norm of x [C, d] without its weight and its bias."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return (layer_norm if self.centred else rms_norm)(x, x.shape[1:], None, eps=self.eps)

    def own(self, x: Tensor) -> Tensor:
        """What the module makes of x [C, d], on the device of x: a sharded model's final norm may be on another."""
        return self.module.forward(x).to(x.device)

    def scale(self, x: Tensor) -> Tensor:
        """[d] by which the module scales, on the device of x; ones where it has no weight."""
        weight = getattr(self.module, "weight", None)
        if weight is None:
            return x.new_ones(x.shape[-1])
        weight = weight.to(x.device)
        return weight.to(torch.promote_types(weight.dtype, torch.float32)) + self.offset if self.offset else weight


@dataclass(frozen=True)
class Mlp:
    """n2(down(z)) of n(m): z = act(gate) * up, or act(up) where there is no gate."""

    norm: Norm
    up: nn.Linear
    down: nn.Linear
    activation: str  # a name of `vjp.ACTIVATIONS` beside a gate, of PLAIN_VJPS without
    gate: nn.Linear | None = None
    norm_behind: Norm | None = None

    @property
    def linears(self) -> list[nn.Linear]:
        return [self.up, self.down, *([] if self.gate is None else [self.gate])]

    def vjp(self, seen: Seen, grad: Tensor, backend: str) -> Tensor:
        """d o / d m [C, d] from d o / d x [C, d], the residual's part included."""
        grad_out = grad if self.norm_behind is None else self.norm_behind.vjp(seen["fed"], grad, backend=backend)
        grad_z = grad_out.to(self.down.weight.dtype) @ self.down.weight
        if self.gate is None:
            grad_normed = PLAIN_VJPS[self.activation](grad_z, seen["up"]) @ self.up.weight
        else:
            grad_gate, grad_up = gated_vjp(grad_z, seen["gate"], seen["up"], self.activation, backend=backend)
            grad_normed = (grad_gate @ self.gate.weight).addmm_(grad_up, self.up.weight)
        return self.norm.vjp(seen["middle"], grad_normed, grad, backend=backend)


def gated(mlp: Mlp, seen: Seen) -> Tensor:
    """z [C, I], the input of the MLP's second matrix."""
    act = PLAIN[mlp.activation]
    return act(seen["up"]) if mlp.gate is None else act(seen["gate"]) * seen["up"]


@dataclass(frozen=True)
class Block:
    """The modules of one layer's tail."""

    o_proj: nn.Linear
    mlp: Mlp | None = None  # None if it does not depend on the attention's output
    norm_behind: Norm | None = None
    beside: nn.Module | None = None  # the MLP in that case: only its output is added

    @property
    def norms(self) -> dict[str, Norm]:
        """The norms, by the names of their inputs in `Seen`."""
        norms = {"attended": self.norm_behind}
        if self.mlp is not None:
            norms |= {"middle": self.mlp.norm, "fed": self.mlp.norm_behind}
        return {name: norm for name, norm in norms.items() if norm is not None}

    @property
    def inputs(self) -> dict[str, nn.Module]:
        """The modules whose inputs the VJP reads, by their names in `Seen`."""
        return {name: norm.module for name, norm in self.norms.items()}

    @property
    def outputs(self) -> dict[str, nn.Module]:
        """The modules whose outputs the VJP or the check of values reads."""
        named = {"attended": self.o_proj, "beside": self.beside}
        if self.mlp is not None:
            named |= {"up": self.mlp.up, "gate": self.mlp.gate, "fed": self.mlp.down}
        return {name: module for name, module in named.items() if module is not None}

    @property
    def linears(self) -> list[nn.Linear]:
        """Those whose matrices the VJP reads."""
        return [self.o_proj, *([] if self.mlp is None else self.mlp.linears)]

    def vjp(self, seen: Seen, grad: Tensor, backend: str = "auto") -> Tensor:
        """u [C, H D] from d o / d x [C, d]; backend: of the element-wise steps, as `backends.plan` takes it."""
        if self.mlp is not None:
            grad = self.mlp.vjp(seen, grad, backend)
        if self.norm_behind is not None:
            grad = self.norm_behind.vjp(seen["attended"], grad, backend=backend)
        return grad.to(self.o_proj.weight.dtype) @ self.o_proj.weight


@dataclass(frozen=True)
class Head:
    """The lens: a final norm, rows of a plain output matrix, and what is done to each logit by itself."""

    norm: Norm
    output: nn.Linear
    slope: Callable[[Tensor, Tensor], Tensor] | None = None  # f' as `LogitLens.slope` gives it; None: f is the identity

    def wanted(self, targets: Tensor) -> Tensor:
        """W[v] [C, d] of targets [C], the same for all layers of a pass."""
        return self.output.weight[targets.to(self.output.weight.device)]

    def vjp(
        self, x: Tensor, targets: Tensor, wanted: Tensor, norm_twice: bool = False, backend: str = "auto"
    ) -> Tensor:
        """d o / d x [C, d] of the logits of targets [C] at x [C, d], from their rows `wanted` on the device of x.

        Args:
            backend: as of Block.
        """
        once = self.norm.own(x) if norm_twice else x
        grad = wanted
        if self.slope is not None:
            grad = grad * self.slope(self.norm.own(once)[None], targets)[:, None]
        if norm_twice:
            grad = self.norm.vjp(once, grad, backend=backend)
        return self.norm.vjp(x, grad, backend=backend)


def check_norms_twice(layer: nn.Module, hidden: Tensor, normed: Tensor, states: Tensor | None) -> None:
    """Raises ModelError where the final norm cannot read what it gave: it puts several streams or states together."""
    if states is not None or hidden.ndim > normed.ndim or hidden.shape[-1] != normed.shape[-1]:
        raise ModelError(
            f"{type(layer).__name__} hands on several {'streams' if states is None else 'states'}, which the model "
            "puts together before its final norm: mode='official', which norms twice, is not defined there"
        )
