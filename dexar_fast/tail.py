"""The layer-tail VJP without autograd, for the block that most decoders share: RMSNorm, gated MLP, two residuals.

    m = h + o_proj(a);   z = act(g) * p, g = gate(norm(m)), p = up(norm(m));   x = m + down(z);   o = <norm_f(x), W[v]>

    dx = norm_f'(x)^T W[v];   dz = down^T dx;   dn = gate^T (act'(g) p dz) + up^T (act(g) dz)
    u  = d o / d a = o_proj^T (dx + norm'(m)^T dn)

Four matrix products over all C queries and a few element-wise steps, from what the forward computes anyway: nothing is
recorded. With I intermediate features and elements of b bytes: 2 C d (H D + 3 I) operations; (H D + 3 I) d b bytes of
weights, read once, and about 6 C (d + I) b of what the forward left. Any other block, and any that turns out not to
follow these equations, is left to autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.decoder import Decoder
from dexar_fast.lens import LogitLens
from dexar_fast.vjp import gated_vjp, norm_vjp

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
OBSERVERS = "transformers.utils."  # whose hooks capture outputs, and change none
NORM_EPS = ("variance_epsilon", "eps")

ACTIVATIONS = {"SiLU": "silu", "SiLUActivation": "silu", "GELUTanh": "gelu_tanh"}  # by class, those of `vjp`


@dataclass(frozen=True)
class Norm:
    """An RMSNorm: x / rms(x) * scale, with whatever scale the module makes of its weight."""

    module: nn.Module
    eps: float

    @classmethod
    def of(cls, module: Any) -> Norm | None:
        eps = next((getattr(module, name) for name in NORM_EPS if hasattr(module, name)), None)
        return cls(module, eps) if "RMSNorm" in type(module).__name__ and isinstance(eps, float) else None

    def vjp(self, x: Tensor, grad: Tensor, residual: Tensor | None = None) -> Tensor:
        """residual + norm'(x)^T grad, [C, d] each, in float32 or better."""
        ones = torch.ones_like(x[:1], dtype=torch.promote_types(x.dtype, torch.float32))
        scale = self.module.forward(ones)[0] * (1 + self.eps) ** 0.5
        return norm_vjp(x, grad, scale, self.eps, residual)


@dataclass(frozen=True)
class Block:
    """The modules of one layer's tail."""

    o_proj: nn.Linear
    norm: Norm
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    activation: str

    @classmethod
    def of(cls, layer: nn.Module, attention: nn.Module) -> Block | None:
        """What a layer's modules look like; None where anything is unknown, adapted, quantised, offloaded or hooked."""
        mlp = getattr(layer, "mlp", None)
        linears = [
            getattr(attention, "o_proj", None),
            *(getattr(mlp, f"{n}_proj", None) for n in ("gate", "up", "down")),
        ]
        norms = [child for name, child in layer.named_children() if "norm" in name.lower()]
        norm = Norm.of(getattr(layer, "post_attention_layernorm", None))
        activation = ACTIVATIONS.get(type(getattr(mlp, "act_fn", None)).__name__)
        if len(norms) != 2 or norm is None or activation is None:
            return None
        if not all(map(is_plain, linears)) or _is_hooked(_hooks_of_tail(layer)):
            return None
        o_proj, gate, up, down = linears
        return cls(o_proj, norm, gate, up, down, activation)  # type: ignore[arg-type]

    def vjp(self, seen: Seen, grad: Tensor) -> Tensor:
        """u [C, H D] from d o / d x [C, d]."""
        dtype = seen.gate.dtype
        grad_z = grad.to(dtype) @ self.down.weight
        grad_gate, grad_up = gated_vjp(grad_z, seen.gate, seen.up, self.activation)
        grad_normed = (grad_gate @ self.gate.weight).addmm_(grad_up, self.up.weight)
        return self.norm.vjp(seen.middle, grad_normed, residual=grad).to(dtype) @ self.o_proj.weight


@dataclass(frozen=True)
class Seen:
    """What one forward of the layer computed for the C queries."""

    middle: Tensor  # [C, d] m
    gate: Tensor  # [C, intermediate] g
    up: Tensor  # [C, intermediate] p


@dataclass(frozen=True)
class Head:
    """A lens that is a final RMSNorm and the rows of a plain output matrix."""

    norm: Norm
    weight: Tensor  # [V, d]

    @classmethod
    def of(cls, lens: LogitLens) -> Head | None:
        if len(lens.before) != 1 or lens.after or not is_plain(lens.head) or _is_hooked(_hooks(lens.modules)):
            return None
        norm = Norm.of(lens.before[0].function)
        return None if norm is None else cls(norm, lens.head.weight)  # type: ignore[arg-type]

    def vjp(self, x: Tensor, targets: Tensor, norm_twice: bool) -> Tensor:
        """d o / d x [C, d] of the logits of targets [C] at x [C, d]."""
        grad = self.weight[targets.to(self.weight.device)]
        if norm_twice:
            grad = self.norm.vjp(self.norm.module.forward(x), grad)
        return self.norm.vjp(x, grad)


class Tails:
    """The tails of one pass's layers that are taken without autograd, and those that may be once they agree with it.

    Args:
        layers: (index, layer, attention) of every layer to be explained.
        trusted: by index, the forwards of a layer's modules and of the lens when its tail agreed; kept from pass to
            pass, because a user may replace a module, or what it does.
    """

    @classmethod
    def of(cls, decoder: Decoder, layers: list[int]) -> Tails:
        """Those of some of the decoder's layers."""
        modules = [(i, decoder.layers[i], decoder.attentions[i]) for i in layers]
        return cls(modules, decoder.lens, decoder.trusted_tails)

    def __init__(
        self, layers: list[tuple[int, nn.Module, nn.Module]], lens: LogitLens, trusted: dict[int, list[Any]]
    ) -> None:
        self._head = Head.of(lens)
        self._trusted = trusted
        self._forwards = {index: _forwards(layer, lens) for index, layer, _ in layers}
        blocks = {index: Block.of(layer, attention) for index, layer, attention in layers if self._head is not None}
        self._blocks = {index: block for index, block in blocks.items() if block is not None and self._beside(block)}
        self._seen: dict[str, Tensor] = {}

    def _beside(self, block: Block) -> bool:
        assert self._head is not None
        return block.o_proj.weight.device == self._head.weight.device

    def trusts(self, index: int) -> bool:
        """Whether the layer needs no autograd."""
        return index in self._blocks and self._trusted.get(index) == self._forwards[index]

    def trusts_all(self) -> bool:
        """Whether no layer needs autograd."""
        return all(map(self.trusts, self._forwards))

    @contextmanager
    def watching(self, watched: Callable[[], bool]) -> Iterator[None]:
        """Keeps what the layers compute inside the block, while `watched` says so, until the next layer does."""

        def keep(name: str, value: Tensor) -> None:
            if watched():
                self._seen[name] = value.detach()

        with ExitStack() as stack:
            for block in self._blocks.values():
                before = block.norm.module.register_forward_pre_hook(lambda _, args: keep("middle", args[0]))
                gate = block.gate.register_forward_hook(lambda _, args, output: keep("gate", output))
                up = block.up.register_forward_hook(lambda _, args, output: keep("up", output))
                for handle in (before, gate, up):
                    stack.callback(handle.remove)
            yield

    def vjp(self, index: int, hidden: Tensor, targets: Tensor, norm_twice: bool) -> Tensor:
        """u [C, H D] of the layer that has just run, from its output [1, C', d]; the last C positions are meant."""
        assert self._head is not None
        count = len(targets)
        seen = Seen(**{name: value[0, -count:] for name, value in self._seen.items()})
        self._seen.clear()
        return self._blocks[index].vjp(seen, self._head.vjp(hidden[0, -count:].detach(), targets, norm_twice))

    def judged(self, index: int, hidden: Tensor, targets: Tensor, norm_twice: bool, expected: Tensor) -> Tensor:
        """Compares the layer's tail with autograd's u [1, C, H, D]; one that differs is not tried again.

        Where they agree the tail's own u is returned: no bit of a chunk's result depends on whether there was a graph.
        """
        if index not in self._blocks:
            return expected
        if self._seen.keys() == {"middle", "gate", "up"}:
            found = self.vjp(index, hidden, targets, norm_twice).view(expected.shape)
            if agrees(found, expected):
                self._trusted[index] = self._forwards[index]
                return found
        del self._blocks[index]
        return expected


def is_plain(module: Any) -> bool:
    """Whether a module is a product with a weight that is here and can be read as it is."""
    return type(module) is nn.Linear and type(module.weight) in (nn.Parameter, Tensor) and not module.weight.is_meta


def _hooks(modules: Iterable[nn.Module]) -> list[Any]:
    return [
        hook
        for m in modules
        for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)
        for hook in hooks.values()
    ]


def _hooks_of_tail(layer: nn.Module) -> list[Any]:
    """Those on the layer's modules and its output; what it is given may be anything."""
    _, *inside = layer.modules()
    return [*layer._forward_hooks.values(), *layer._backward_hooks.values(), *_hooks(inside)]


def _is_hooked(hooks: list[Any]) -> bool:
    """Whether any of the hooks may change what a module computes, in this call or a later one."""
    return any(not str(getattr(hook, "__module__", "")).startswith(OBSERVERS) for hook in hooks)


def _forwards(layer: nn.Module, lens: LogitLens) -> list[Any]:
    return [module.forward for module in (*layer.modules(), *lens.modules)]


def agrees(found: Tensor, expected: Tensor) -> bool:
    """Whether two gradients differ by rounding alone; never where any is not finite, or none is not 0."""
    error = (found.double() - expected.double()).abs().max()
    largest = expected.double().abs().max()
    return bool(largest > 0) and bool(error <= TOLERANCE.get(expected.dtype, 0.0) * largest)
