"""Which modules a layer's tail is made of, by names and classes: a guess until autograd agrees (`trust.Tails`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dexar_fast.attribution.tails import vjp
from dexar_fast.attribution.tails.block import PLAIN_VJPS, Block, Head, Mlp, Norm
from dexar_fast.model.lens.program import LogitLens

Layout = tuple[str | None, str | None, str | None]

LAYOUTS: dict[frozenset[str], Layout] = {  # from all norms of a layer to those behind o_proj, before and behind the MLP
    frozenset({"input_layernorm", "post_attention_layernorm"}): (None, "post_attention_layernorm", None),
    frozenset({"self_attn_layer_norm", "final_layer_norm"}): (None, "final_layer_norm", None),  # OPT, BioGPT
    frozenset(
        {
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        }
    ): ("post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),  # Gemma 2 and 3
    frozenset({"input_layernorm"}): (None, None, None),  # parallel: Cohere, Phi
}
OUTPUT = ("o_proj", "out_proj", "dense")
UP_AND_DOWN = (("up_proj", "down_proj"), ("fc1", "fc2"), ("c_fc", "c_proj"))
ACTIVATION = ("act_fn", "activation_fn", "act")
ACTIVATIONS = {  # by class
    "SiLU": "silu",
    "SiLUActivation": "silu",
    "GELUActivation": "gelu",
    "GELUTanh": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh",
    "ReLU": "relu",
    "QuickGELUActivation": "quick_gelu",
}
EPS = ("variance_epsilon", "eps")
ROUNDING = 0.1  # above that of bfloat16 at 3, below the step from one kind of scale to another


def block_of(layer: nn.Module, attention: nn.Module) -> Block | None:
    """The block that a layer's modules look like; None if any is unknown, adapted, quantised or offloaded."""
    layout = LAYOUTS.get(frozenset(name for name in layer._modules if "norm" in name.lower()))
    o_proj = _child(attention, *OUTPUT)
    if layout is None or not is_plain(o_proj):
        return None
    norms = {name: norm_of(layer._modules[name], o_proj.out_features) for name in layout if name}
    if None in norms.values():
        return None
    behind_attention, before_mlp, behind_mlp = (norms.get(name or "") for name in layout)
    if before_mlp is None:
        beside = layer._modules.get("mlp")
        return None if beside is None else Block(o_proj, None, behind_attention, beside)
    mlp = _mlp_of(layer._modules.get("mlp", layer), before_mlp, behind_mlp)
    return None if mlp is None else Block(o_proj, mlp, behind_attention)


def _mlp_of(module: Any, norm: Norm, norm_behind: Norm | None) -> Mlp | None:
    """The MLP whose parts are a module's children, with its norms; None if a part is unknown."""
    activation = ACTIVATIONS.get(type(_child(module, *ACTIVATION)).__name__)
    up, down = (_child(module, *names) for names in zip(*UP_AND_DOWN, strict=True))
    gate = _child(module, "gate_proj")
    if activation is None or activation not in (PLAIN_VJPS if gate is None else vjp.ACTIVATIONS):
        return None
    if not all(map(is_plain, (up, down) if gate is None else (up, down, gate))):
        return None
    return Mlp(norm, up, down, activation, gate, norm_behind)


def head_of(lens: LogitLens) -> Head | None:
    """The head that a lens looks like; None as in `block_of`."""
    if len(lens.before) != 1 or not is_plain(lens.head):
        return None
    head: Any = lens.head
    norm = norm_of(lens.before[0].function, head.in_features)
    return None if norm is None else Head(norm, head, lens.slope if lens.after else None)


def norm_of(module: Any, width: int) -> Norm | None:
    """An RMSNorm or a LayerNorm of d = width features, by the name of its class."""
    name = type(module).__name__
    if "RMSNorm" not in name and "LayerNorm" not in name:
        return None
    eps = next((value for key in EPS if isinstance(value := vars(module).get(key), float)), None)
    if eps is None:
        return None
    centred = "RMSNorm" not in name
    offset = _offset_of(module, eps, centred, width)
    return None if offset is None else Norm(module, eps, centred, offset)


@torch.no_grad()
def _offset_of(module: nn.Module, eps: float, centred: bool, width: int) -> float | None:
    """What a norm adds to its weight [d] before it scales by it: 0 or, as Gemma's, 1; None if it does anything else.

    Tried with weights of our own from -2 to 2: with the module's own, something else might give the same numbers.
    """
    own = dict(module.named_parameters())
    if own.keys() - {"weight", "bias"} or any(x.is_meta or x.shape != (width,) for x in own.values()):
        return None
    if type(module) in (nn.LayerNorm, nn.RMSNorm):
        return 0.0
    scale, zeros = torch.linspace(-2, 2, width, device="cpu"), torch.zeros(width, device="cpu")
    drawn = {name: (scale if name == "weight" else zeros).to(x) for name, x in own.items()}
    weight = drawn.get("weight", torch.ones(width, device="cpu"))
    probe = _probe(width, centred).to(weight)
    try:
        found = functional_call(module, drawn, (probe[None, None],))[0, 0].float()
    except Exception:  # its forward takes something else than one tensor, and may raise anything
        return None
    normed = probe.float() * (probe.float().square().mean() + eps).rsqrt()
    offsets = (0.0, 1.0) if "weight" in own else (0.0,)
    exact = (o for o in offsets if (found - normed * (weight.float() + o)).abs().max() < ROUNDING)
    return next(exact, None)


def _probe(width: int, centred: bool) -> Tensor:
    """[d] numbers that a norm only has to scale."""
    probe = torch.ones(width, device="cpu")
    if centred:
        probe[1::2] = -1
        probe -= probe.mean()
    return probe


def is_plain(module: Any) -> bool:
    """Whether a module is a plain nn.Linear whose weight is here and can be read as it is."""
    return type(module) is nn.Linear and type(module.weight) in (nn.Parameter, Tensor) and not module.weight.is_meta


def _child(module: nn.Module, *names: str) -> Any:
    """The module's child with the first of these names that it has, or None."""
    return next((child for name in names if (child := dict(module._modules).get(name)) is not None), None)
