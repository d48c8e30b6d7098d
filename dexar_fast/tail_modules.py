"""Which modules a layer's tail is made of, by their names and classes: a guess until autograd agrees (`tail.Tails`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast import vjp
from dexar_fast.lens import LogitLens
from dexar_fast.tail_block import PLAIN_VJPS, Block, Head, Mlp, Norm

Layout = tuple[str | None, str | None, str | None]

LAYOUTS: dict[frozenset[str], Layout] = {  # by all of a layer's norms: those behind o_proj, before and behind the MLP
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


def block_of(layer: nn.Module, attention: nn.Module) -> Block | None:
    """What a layer's modules look like; None where anything is unknown, adapted, quantised or offloaded."""
    layout = LAYOUTS.get(frozenset(name for name in layer._modules if "norm" in name.lower()))
    o_proj = _child(attention, *OUTPUT)
    if layout is None or not is_plain(o_proj):
        return None
    norms = {name: norm_of(layer._modules[name]) for name in layout if name}
    if None in norms.values():
        return None
    behind_attention, before_mlp, behind_mlp = (norms.get(name or "") for name in layout)
    if before_mlp is None:
        return Block(o_proj, None, behind_attention)
    mlp = _mlp_of(layer._modules.get("mlp", layer), before_mlp, behind_mlp)
    return None if mlp is None else Block(o_proj, mlp, behind_attention)


def _mlp_of(module: Any, norm: Norm, norm_behind: Norm | None) -> Mlp | None:
    """The norms and the MLP whose parts are a module's children."""
    activation = ACTIVATIONS.get(type(_child(module, *ACTIVATION)).__name__)
    up, down = (_child(module, *names) for names in zip(*UP_AND_DOWN, strict=True))
    gate = _child(module, "gate_proj")
    if activation is None or activation not in (PLAIN_VJPS if gate is None else vjp.ACTIVATIONS):
        return None
    if not all(map(is_plain, (up, down) if gate is None else (up, down, gate))):
        return None
    return Mlp(norm, up, down, activation, gate, norm_behind)


def head_of(lens: LogitLens) -> Head | None:
    """What a lens looks like, likewise."""
    if len(lens.before) != 1 or not is_plain(lens.head):
        return None
    norm = norm_of(lens.before[0].function)
    return None if norm is None else Head(norm, lens.head, lens.slope if lens.after else None)  # type: ignore[arg-type]


def norm_of(module: Any) -> Norm | None:
    """An RMSNorm or a LayerNorm, by the name of its class."""
    name = type(module).__name__
    if "RMSNorm" not in name and "LayerNorm" not in name:
        return None
    eps = next((value for key in EPS if isinstance(value := vars(module).get(key), float)), None)
    if eps is None:
        return None
    centred = "RMSNorm" not in name
    offset = _offset_of(module, eps, centred)
    return None if offset is None else Norm(module, eps, centred, offset)


@torch.no_grad()
def _offset_of(module: nn.Module, eps: float, centred: bool) -> float | None:
    """What a norm adds to its weight: 0 or, as Gemma's, 1; read off its output for a vector that it only scales."""
    weight: Any = getattr(module, "weight", None)
    if weight is None or isinstance(module, nn.LayerNorm | nn.RMSNorm):  # torch's add a bias to their output
        return 0.0
    if weight.is_meta or weight.ndim != 1:
        return None
    probe = torch.ones_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    if centred:
        probe[1::2] = -1
        probe -= probe.mean()
    try:
        normed = module.forward(probe[None])
    except (TypeError, RuntimeError):  # it wants more than one tensor
        return None
    scale = normed[0] * (probe.square().mean() + eps).sqrt() / probe
    offsets = [offset for offset in (0.0, 1.0) if (scale - weight - offset).abs().max() < 0.01]
    return offsets[0] if offsets else None


def is_plain(module: Any) -> bool:
    """Whether a module is a product with a weight that is here and can be read as it is."""
    return type(module) is nn.Linear and type(module.weight) in (nn.Parameter, Tensor) and not module.weight.is_meta


def _child(module: nn.Module, *names: str) -> Any:
    """That of a module's children which has one of some names; None where none has."""
    return next((child for name in names if (child := module._modules.get(name)) is not None), None)
