"""Vision towers whose visual tokens are the mean colour of the pixels they stand for.

The oracle of where a visual token lies is the model's own code: its patch embedding, window order, pixel shuffle,
patch merger, pooling, tiling, unpadding and newlines run as they are. Only what mixes patches or bends values is
silenced (attention, the layers of the encoder, norms, activations), and every weight matrix takes means. What a model's
`get_image_features` then returns for a visual token is linear in its pixels: paint a region, and its change is the
share of the token's pixels that were painted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

BLIND = "no_attention"
NEWLINE = 1e3  # the colour of newline features, which no pixel has
ENCODER_LAYERS = ("EncoderLayer", "VisionLayer", "VisionBlock", "PixtralAttentionLayer")
ACTIVATIONS = (nn.GELU, nn.SiLU)


class Pass(nn.Module):
    """In the place of a norm or an activation; contiguous, as their outputs are."""

    def forward(self, values: Tensor) -> Tensor:
        return values.contiguous()


class Ones(nn.Module):
    """In the place of a gated layer's activation: its gate is open."""

    def forward(self, values: Tensor) -> Tensor:
        return torch.ones_like(values)


def no_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    return torch.zeros_like(query).transpose(1, 2).contiguous(), None


AttentionInterface.register(BLIND, no_attention)
AttentionMaskInterface.register(BLIND, lambda *args, **kwargs: None)


@torch.no_grad()
def linearise(model: Any) -> Any:
    """The model, changed in place: features of equal channels, each the mean colour of a token's pixels."""
    model.set_attn_implementation(BLIND)
    for module in list(model.modules()):
        _silence(module)
    for parameter in model.parameters():
        parameter.fill_(1 / parameter[0].numel() if parameter.ndim > 1 else 0)
    for module in model.modules():
        if type(module).__name__.endswith(ENCODER_LAYERS):
            for parameter in module.parameters():
                parameter.zero_()
    for name, parameter in model.named_parameters():
        if name.endswith("image_newline"):
            parameter.fill_(NEWLINE)
    return model.eval()


def _silence(module: nn.Module) -> None:
    """Norms and activations among a module's children let their input through."""
    for name, child in module.named_children():
        kind = type(child).__name__
        if "Norm" in kind:
            setattr(module, name, Pass())
        elif isinstance(child, ACTIVATIONS) or "Activation" in kind or kind == "GELUTanh":
            gated = type(module).__name__.startswith(("AyaVision", "Cohere2Vision"))
            setattr(module, name, Ones() if gated else Pass())


@torch.no_grad()
def colours(found: Any) -> Tensor:
    """[N] the mean colour of each visual token of `get_image_features` or `get_video_features`, in prompt order."""
    features = found.pooler_output
    features = torch.cat(list(features)) if isinstance(features, list | tuple) else features
    return features.reshape(-1, features.shape[-1]).mean(-1)
