"""The layer-tail VJP against its oracle in float64: every kind of norm, MLP and block, odd sizes, random weights."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import OPTConfig
from transformers.activations import ACT2FN
from transformers.models.cohere.modeling_cohere import CohereLayerNorm
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.opt.modeling_opt import OPTDecoderLayer

from dexar_fast.attribution.tails.modules import block_of, head_of
from dexar_fast.attribution.tails.trust import TOLERANCE, Tails
from dexar_fast.backends import reference
from dexar_fast.model.lens.program import LogitLens, Outdated, Slot, Step

HEADS_DIM, INTERMEDIATE, VOCABULARY, EARLIER = 44, 81, 11, 2
EPS = 1e-3
BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2.5e-2, torch.float16: 3e-3}  # of the largest
SINGLE = 2e-6  # where a norm sums in float32 whatever it is given
NORMS: dict[str, Any] = {
    "rms": partial(nn.RMSNorm, eps=EPS),
    "layer": partial(nn.LayerNorm, eps=EPS),
    "bare": partial(nn.LayerNorm, eps=EPS, elementwise_affine=False),
    "gemma": partial(Gemma2RMSNorm, eps=EPS),
    "cohere": partial(CohereLayerNorm, eps=EPS),
}
NAMES = {"gelu_tanh": "gelu_pytorch_tanh"}  # transformers'


@dataclass(frozen=True)
class Kind:
    """A kind of decoder block."""

    norm: str
    activation: str
    gated: bool = True
    behind: bool = False  # norms behind attention and MLP
    parallel: bool = False
    bias: bool = False
    width: int = 60
    named: str = ""  # the activation in transformers, where that is not its name


KINDS = {
    "llama": Kind("rms", "silu"),
    "gemma": Kind("gemma", "gelu_tanh", width=61),
    "gemma2": Kind("gemma", "gelu_tanh", behind=True),
    "four_norms": Kind("layer", "silu", behind=True, bias=True, width=61),
    "stablelm": Kind("layer", "silu"),
    "cohere": Kind("cohere", "silu", parallel=True, width=61),
    "phi": Kind("layer", "gelu_tanh", gated=False, parallel=True, bias=True),
    "starcoder2": Kind("layer", "gelu_tanh", gated=False, bias=True),
    "gelu_new": Kind("layer", "gelu_tanh", gated=False, named="gelu_new"),
    "opt": Kind("bare", "relu", gated=False, bias=True, width=61),
    "gelu": Kind("layer", "gelu", gated=False),
    "silu": Kind("rms", "silu", gated=False),
    "quick_gelu": Kind("cohere", "quick_gelu", gated=False, width=61),
}


class Mlp(nn.Module):
    """Its children are named and made by the layer."""

    def forward(self, normed: Tensor) -> Tensor:
        up, gate = self.up_proj(normed), getattr(self, "gate_proj", None)
        return self.down_proj(self.act_fn(up) if gate is None else self.act_fn(gate(normed)) * up)


class Layer(nn.Module):
    """What lies behind the attention, under the names that transformers gives."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        norm = partial(NORMS[kind.norm], kind.width)
        linear = partial(nn.Linear, bias=kind.bias)
        self.kind = kind
        self.self_attn, self.mlp = nn.Module(), Mlp()
        self.self_attn.o_proj = linear(HEADS_DIM, kind.width)
        self.input_layernorm = norm()
        if not kind.parallel:
            self.post_attention_layernorm = norm()
        if kind.behind:
            self.pre_feedforward_layernorm, self.post_feedforward_layernorm = norm(), norm()
        if kind.gated:
            self.mlp.gate_proj = linear(kind.width, INTERMEDIATE)
        self.mlp.up_proj, self.mlp.down_proj = linear(kind.width, INTERMEDIATE), linear(INTERMEDIATE, kind.width)
        self.mlp.act_fn = ACT2FN[kind.named or NAMES.get(kind.activation, kind.activation)]

    @property
    def norms(self) -> tuple[nn.Module | None, nn.Module, nn.Module | None]:
        """Behind the attention, before the MLP, behind it."""
        if self.kind.behind:
            return self.post_attention_layernorm, self.pre_feedforward_layernorm, self.post_feedforward_layernorm
        return None, self.input_layernorm if self.kind.parallel else self.post_attention_layernorm, None

    def forward(self, residual: Tensor, attended: Tensor) -> Tensor:
        behind_attention, before_mlp, behind_mlp = self.norms
        out = self.self_attn.o_proj(attended)
        middle = residual + (out if behind_attention is None else behind_attention(out))
        fed = self.mlp(before_mlp(residual if self.kind.parallel else middle))
        return middle + (fed if behind_mlp is None else behind_mlp(fed))

    def oracle(self) -> reference.LayerTail:
        behind_attention, before_mlp, behind_mlp = (module and norm_of(module) for module in self.norms)
        gate = affine(self.mlp.gate_proj) if self.kind.gated else None
        linears = affine(self.mlp.up_proj), affine(self.mlp.down_proj)
        kind = self.kind
        assert before_mlp is not None
        return reference.LayerTail(
            affine(self.self_attn.o_proj),
            before_mlp,
            *linears,
            kind.activation,
            gate,
            behind_attention,
            behind_mlp,
            kind.parallel,
        )


def affine(linear: nn.Linear) -> reference.Affine:
    return linear.weight.double(), None if linear.bias is None else linear.bias.double()


def norm_of(module: Any) -> reference.Norm:
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    scale = torch.ones(()) if weight is None else weight
    scale = scale.double() + isinstance(module, Gemma2RMSNorm)
    shift = None if bias is None else bias.double()
    return reference.Norm(scale, EPS, shift, centred="LayerNorm" in type(module).__name__)


def drawn(module: Any, dtype: torch.dtype) -> Any:
    """In that dtype, every weight at random."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.2))
            parameter.add_(float(parameter.ndim == 1))
    return module.to(dtype)


def lens_of(norm: nn.Module, head: nn.Linear, *after: Step) -> LogitLens:
    """head(norm(x)) and what comes behind."""
    return LogitLens(
        [Step(norm, (Slot(0),), {}, 1)], head, list(after), 1, 2, after[-1].result if after else 2, head.out_features
    )


def capped(by: float) -> tuple[Step, ...]:
    """by tanh(z / by)."""
    parts = (torch.div, (Slot(2), by)), (torch.tanh, (Slot(3),)), (torch.mul, (Slot(4), by))
    return tuple(Step(function, arguments, {}, 3 + i) for i, (function, arguments) in enumerate(parts))


@torch.no_grad()
def tail_of(
    layer: Any, lens: LogitLens, given: tuple[Tensor, Tensor], targets: Tensor, norm_twice: bool = False
) -> Tensor:
    """u by the formula, from a forward of the layer that some earlier positions run in as well.

    The layer's numbers are the formula's, too, unless a norm sums in less than it is given.
    """
    tails = Tails([(0, layer, layer.self_attn)], lens, {})
    earlier = torch.full((EARLIER, 1), torch.nan).to(given[0])
    rows = (torch.cat([earlier.expand(-1, x.shape[1]), x])[None] for x in reversed(given))
    with tails.watching(lambda: True, lambda rows: rows):
        output = layer(*rows)
    u = tails.vjp(0, output, given[0][None, :, None], targets[None], norm_twice)
    norms = [*layer.modules(), *lens.modules]
    in_single = output.dtype == torch.float64 and any(isinstance(m, Gemma2RMSNorm | CohereLayerNorm) for m in norms)
    with pytest.raises(Outdated) if in_single else nullcontext():
        tails.settle(output[:, -len(targets) :], lens.norm(output[:, -len(targets) :]))
    return u[0, :, 0]


def assert_close(found: Tensor, expected: Tensor, bound: float) -> None:
    assert (found - expected).abs().max() <= bound * expected.abs().max()


CASES = [
    (name, dtype)
    for name, kind in KINDS.items()
    for dtype in BOUNDS
    if kind.activation != "relu" or dtype.itemsize > 2  # its slope jumps where rounding may change the sign
]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=str)
def test_it_is_the_oracles(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    kind = KINDS[name]
    layer, final = drawn(Layer(kind), dtype), drawn(NORMS[kind.norm](kind.width), dtype)
    head = drawn(nn.Linear(kind.width, VOCABULARY, bias=kind.bias), dtype)
    for count in (1, 3, 17):
        attended, residual = (torch.randn(count, size, dtype=dtype) for size in (HEADS_DIM, kind.width))
        targets = torch.randint(VOCABULARY, (count,))
        found = tail_of(layer, lens_of(final, head), (attended, residual), targets)
        wanted = reference.layer_tail_vjp(
            attended.double(), residual.double(), layer.oracle(), norm_of(final), head.weight[targets].double()
        )
        assert found.dtype == dtype
        bound = max(BOUNDS[dtype], SINGLE) if kind.norm in ("gemma", "cohere") else BOUNDS[dtype]
        assert_close(found.double(), wanted, bound)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("norm_twice", [False, True])
@pytest.mark.parametrize("cap", [None, 0.7])
def test_the_head_may_cap_its_logits_and_norm_twice(cap: float | None, norm_twice: bool, norm: str) -> None:
    torch.manual_seed(0)
    layer, final = drawn(Layer(KINDS["llama"]), torch.float64), drawn(NORMS[norm](60), torch.float64)
    head, targets = drawn(nn.Linear(60, VOCABULARY), torch.float64), torch.randint(VOCABULARY, (5,))
    given = torch.randn(5, HEADS_DIM).double(), torch.randn(5, 60).double()
    found = tail_of(layer, lens_of(final, head, *(capped(cap) if cap else ())), given, targets, norm_twice)
    rows, biases = head.weight[targets], head.bias[targets]
    if cap is None:
        wanted = reference.layer_tail_vjp(*given, layer.oracle(), norm_of(final), rows, norms=1 + norm_twice)
    else:  # one at a time: each token has a bias of its own inside the cap
        wanted = torch.cat(
            [
                reference.layer_tail_vjp(
                    *(x[c : c + 1] for x in given),
                    layer.oracle(),
                    norm_of(final),
                    rows[c : c + 1],
                    lambda z, bias=biases[c]: cap * torch.tanh((z + bias) / cap),
                    norms=1 + norm_twice,
                )
                for c in range(5)
            ]
        )
    assert_close(found, wanted.detach(), SINGLE if norm in ("gemma", "cohere") else BOUNDS[torch.float64])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_pytorch_tanh", "gelu_new", "quick_gelu", "silu"])
def test_the_layer_of_opt(activation: str, dtype: torch.dtype) -> None:
    """Its MLP lies in the layer itself, and it flattens its positions; against autograd."""
    torch.manual_seed(0)
    config = OPTConfig(hidden_size=60, ffn_dim=81, num_attention_heads=2, activation_function=activation)
    config._attn_implementation = "eager"
    layer = drawn(OPTDecoderLayer(config, layer_idx=0), dtype).eval()
    lens = lens_of(drawn(nn.LayerNorm(60), dtype), drawn(nn.Linear(60, VOCABULARY), dtype))
    tails, targets, leaf = Tails([(0, layer, layer.self_attn)], lens, {}), torch.randint(VOCABULARY, (5,)), []

    def detached(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        leaf.append(args[0].detach().requires_grad_())
        return (leaf[0],)

    with tails.watching(lambda: True, lambda rows: rows):
        layer.self_attn.out_proj.register_forward_pre_hook(detached)
        output = layer(torch.randn(1, 5, 60).to(dtype))
    (wanted,) = torch.autograd.grad(lens(output, targets).sum(), leaf[0])
    assert not tails.trusts(0)
    found = tails.judged(0, output.detach(), leaf[0][:, :, None], targets[None], False, wanted[:, :, None])[:, :, 0]
    assert tails.trusts(0)
    assert_close(found, wanted, TOLERANCE[dtype])


def test_modules_of_another_kind_are_not_taken() -> None:
    """A norm whose class is unknown, some that scale in their own way, and a lens that does more than norm."""

    class Scale(nn.Identity):
        eps = 1e-5

    class DoubleRMSNorm(Gemma2RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    class AdaptiveRMSNorm(Gemma2RMSNorm):
        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return condition * super().forward(x)

    layer, norm, head = Layer(KINDS["llama"]), nn.RMSNorm(60, eps=EPS), nn.Linear(60, VOCABULARY)
    assert block_of(layer, layer.self_attn) is not None
    layer.post_attention_layernorm = Scale()
    assert block_of(layer, layer.self_attn) is None
    for norm_of_another_kind in (DoubleRMSNorm, AdaptiveRMSNorm):
        layer.post_attention_layernorm = norm_of_another_kind(60, eps=EPS)
        assert block_of(layer, layer.self_attn) is None
    lens = lens_of(norm, head)
    assert head_of(lens) is not None
    assert head_of(replace(lens, before=[*lens.before, Step(torch.mul, (Slot(1), 2.0), {}, 3)])) is None


def test_what_a_norm_is_given_by_keyword_is_left_to_autograd() -> None:
    """It is not seen."""

    class Keyword(Layer):
        def forward(self, residual: Tensor, attended: Tensor) -> Tensor:
            return self.post_attention_layernorm(input=residual + self.self_attn.o_proj(attended))

    layer, head = Keyword(KINDS["stablelm"]), nn.Linear(60, VOCABULARY)
    tails = Tails([(0, layer, layer.self_attn)], lens_of(nn.LayerNorm(60), head), {})
    with tails.watching(lambda: True, lambda rows: rows):
        output = layer(torch.randn(1, 3, 60), torch.randn(1, 3, HEADS_DIM))
    expected = torch.randn(1, 3, 4, 11)
    assert tails.judged(0, output, expected, torch.arange(3)[None], False, expected) is expected
    assert not tails.trusts(0)
