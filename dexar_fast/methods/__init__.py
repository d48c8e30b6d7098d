"""Ways to explain an answer: each takes a request with its answer and gives maps. The pass itself is attribution's."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dexar_fast.methods.activation.llava_cam import LlavaCam
    from dexar_fast.methods.activation.tam import Tam
    from dexar_fast.methods.attention.gradient import AttentionGradient
    from dexar_fast.methods.attention.raw import Attention
    from dexar_fast.methods.attention.relevancy import Relevancy
    from dexar_fast.methods.attention.rollout import Rollout
    from dexar_fast.methods.base import Asked, Maps
    from dexar_fast.methods.controls import Centre, Random, SmoothRandom, Uniform
    from dexar_fast.methods.dex_ar import DexAr
    from dexar_fast.methods.eagle.method import Eagle
    from dexar_fast.methods.gradient.attn_lrp import AttnLrp
    from dexar_fast.methods.gradient.integrated import IntegratedGradients
    from dexar_fast.methods.gradient.plain import GradientXInput, InputGradient
    from dexar_fast.methods.gradient.smooth import SmoothGrad
    from dexar_fast.methods.masked.igos_pp import IgosPp
    from dexar_fast.methods.masked.occlusion import Occlusion
    from dexar_fast.methods.masked.of_captum import Captum
    from dexar_fast.methods.masked.rise import Rise
    from dexar_fast.methods.masked.shapley import Shapley
    from dexar_fast.methods.registry import names

__all__ = [
    "Asked",
    "Attention",
    "AttentionGradient",
    "AttnLrp",
    "Captum",
    "Centre",
    "DexAr",
    "Eagle",
    "GradientXInput",
    "IgosPp",
    "InputGradient",
    "IntegratedGradients",
    "LlavaCam",
    "Maps",
    "Occlusion",
    "Random",
    "Relevancy",
    "Rise",
    "Rollout",
    "Shapley",
    "SmoothGrad",
    "SmoothRandom",
    "Tam",
    "Uniform",
    "names",
]

_LATE = {
    "Asked": "base",
    "Attention": "attention.raw",
    "AttentionGradient": "attention.gradient",
    "AttnLrp": "gradient.attn_lrp",
    "Captum": "masked.of_captum",
    "Centre": "controls",
    "DexAr": "dex_ar",
    "Eagle": "eagle.method",
    "GradientXInput": "gradient.plain",
    "IgosPp": "masked.igos_pp",
    "InputGradient": "gradient.plain",
    "IntegratedGradients": "gradient.integrated",
    "LlavaCam": "activation.llava_cam",
    "Maps": "base",
    "Occlusion": "masked.occlusion",
    "Random": "controls",
    "Relevancy": "attention.relevancy",
    "Rise": "masked.rise",
    "Rollout": "attention.rollout",
    "Shapley": "masked.shapley",
    "SmoothGrad": "gradient.smooth",
    "SmoothRandom": "controls",
    "Tam": "activation.tam",
    "Uniform": "controls",
    "names": "registry",
}


def __getattr__(name: str) -> Any:
    """Imports a method when it is first asked for."""
    if name not in _LATE:
        raise AttributeError(f"module 'dexar_fast.methods' has no attribute {name!r}")
    return getattr(import_module(f"dexar_fast.methods.{_LATE[name]}"), name)
