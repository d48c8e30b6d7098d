"""Raw attention: where the query that predicts a token looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dexar_fast.attribution.rows.matrices import mean_attention
from dexar_fast.attribution.rows.probabilities import last
from dexar_fast.methods.attention.chunks import plan_of
from dexar_fast.methods.attention.request import Layers, OfLayers, answer_forward, in_memory, maps_of, no_maps
from dexar_fast.methods.base import Asked, Following, Maps
from dexar_fast.model.attention import Call

_NOTES = (
    "Map value of a patch: how much attention the position that predicts the token pays to it, the mean over heads and "
    "the chosen layers. A probability: over all keys, the text's too, these values sum to 1.",
    "Attention tells where a layer reads, not whether that changed the token. A few positions often draw most of it, "
    "whatever is asked.",
)


@dataclass(frozen=True)
class Attention(OfLayers):
    """map[t, j] = mean over layers and heads of A_l[h, p_t, j], j visual.

    One forward of prompt and answer. The values are probabilities: over all keys, not the visual alone, they sum to 1.
    Defined for layers of softmax attention: windows, soft caps, biases of positions and grouped heads are part of A.

    Attributes:
        layers: the layers to average, negative from the end; None is all of them. The last alone is what the field
            calls raw attention (as hila-chefer/Transformer-MM-Explainability does).
    Raises:
        InputError: layers is empty, or holds no whole numbers.
    """

    name: ClassVar[str] = "attention"
    streams: ClassVar[bool] = True
    layers: Layers = (-1,)

    @torch.no_grad()
    def maps(self, asked: Asked) -> Maps:
        chosen, found = self.layers_of(len(asked.decoder.layers)), no_maps(asked)

        def take(layer: int, call: Call, output: Tensor, tokens: slice) -> Tensor:
            for some, rows in last(call, tokens):
                found.add(some, mean_attention(call, rows))
            return output

        with in_memory(self.name):
            answer_forward(asked, chosen, take).run()
        return maps_of(asked, found.token_maps / len(chosen), chosen, _NOTES)

    def follow(self, asked: Asked) -> Following:
        """See `dexar_fast.methods.base.Streaming`."""
        chosen = self.layers_of(len(asked.decoder.layers))
        plan = plan_of(
            asked, chosen, lambda call, rows, _: mean_attention(call, rows) / len(chosen), differentiates=False
        )
        return Following(plan, lambda maps: maps_of(asked, maps, chosen, _NOTES))
