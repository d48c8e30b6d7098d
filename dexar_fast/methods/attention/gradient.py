"""Attention times its gradient, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dexar_fast.attribution import engine
from dexar_fast.attribution.calls.rows import Answers
from dexar_fast.attribution.rows.matrices import VisualMaps, net_gradient
from dexar_fast.attribution.rows.own_rows import own_rows
from dexar_fast.attribution.rows.probabilities import last
from dexar_fast.attribution.rows.recorded import Recorded, Recorder, gradients, recording
from dexar_fast.attribution.tails.trust import Tails
from dexar_fast.errors import InputError
from dexar_fast.methods.attention.chunks import plan_of
from dexar_fast.methods.attention.request import (
    Layers,
    OfLayers,
    all_layers,
    answer_forward,
    in_memory,
    maps_of,
    no_maps,
)
from dexar_fast.methods.base import Asked, Following, Maps
from dexar_fast.model.attention import Call
from dexar_fast.model.memory import default_chunk
from dexar_fast.model.prefill import Prefix, postponed, prefill, takes_answer
from dexar_fast.prompt.inputs import largest

Of = Literal["lens", "final"]

_LOGIT = {
    "lens": "the token's logit as each layer's own logit lens reads it",
    "final": "the model's logit of the token",
}
_VALUE = (
    "Map value of a patch, in logits: the sum over layers of attention to the patch \N{MULTIPLICATION SIGN} its "
    "gradient of {}, summed over heads, 0 where negative."
)
_LIMIT = (
    "It is a first-order estimate: hiding the patch may change the logit by another amount. Evidence against shows 0."
)


@dataclass(frozen=True)
class AttentionGradient(OfLayers):
    """map[t, j] = sum_l relu(sum_h A_l[h, p_t, j] dA_l[h, p_t, j]), j visual. Our definition: no source has it.

    Attributes:
        of: whose gradient dA is. "lens": the layer's own logit-lens value of the token (METHOD.md section 2, before
            relu), in the one pass that DEX-AR takes. "final": the model's own logit, through all layers above. T
            logits need one backward in a causal model, as each depends on A_l[h, p_t] through its own row alone.
        layers: the layers to sum over, negative from the end; None is all of them.
    Raises:
        InputError: an unknown value, or layers is empty or holds no whole numbers.
    """

    name: ClassVar[str] = "attention-gradient"
    contrasts: ClassVar[bool] = True
    of: Of = "lens"
    layers: Layers = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of not in ("lens", "final"):
            raise InputError(f"of {self.of!r} is none of 'lens', 'final'")

    def maps(self, asked: Asked) -> Maps:
        chosen = self.layers_of(len(asked.decoder.layers))
        found = _of_lens(asked, chosen) if self.of == "lens" else _of_final(asked, chosen)
        return maps_of(asked, found, chosen, self._notes)

    @property
    def streams(self) -> bool:
        """Of the layers' own lenses; the model's logit takes a graph through all layers."""
        return self.of == "lens"

    def follow(self, asked: Asked) -> Following:
        """See `dexar_fast.methods.base.Streaming`."""
        chosen = self.layers_of(len(asked.decoder.layers))
        return Following(plan_of(asked, chosen, net_gradient), lambda maps: maps_of(asked, maps, chosen, self._notes))

    @property
    def _notes(self) -> list[str]:
        return [_VALUE.format(_LOGIT[self.of]), _LIMIT]


def _of_lens(asked: Asked, layers: list[int]) -> Tensor:
    """The maps [T, N] of the layers' own logit-lens values."""
    inputs, ids = asked.inputs, asked.inputs["input_ids"]
    prompt, by_tails = ids.shape[1], layers if asked.against is None else []
    tails = Tails.of(asked.decoder, by_tails, asked.backend)
    plan = plan_of(asked, layers, net_gradient, tails=tails)
    matrices = 2 * 4 * _heads(asked) * (prompt + len(asked.targets))  # a layer's attention and its gradient
    chunk = asked.chunk_size or default_chunk(asked.decoder.layers, matrices)
    fits = len(asked.targets) <= chunk and takes_answer(inputs, asked.decoder, asked.visual)
    at_once = fits and asked.against is None and tails.trusts_all()
    begin = postponed if at_once else prefill
    with in_memory(AttentionGradient.name):
        prefilled = begin(asked.model, inputs, asked.decoder, Prefix(asked.model.config))
        chunks: list[VisualMaps] = []
        answers = Answers.one(torch.cat([ids[0, -1:], asked.targets.to(ids)]))
        engine.explain(asked.model, prefilled, [plan], answers, 0, chunk, chunks.extend)
    return torch.cat([each.token_maps for each in chunks])


def _heads(asked: Asked) -> int:
    return largest(asked.model.config.get_text_config(decoder=True), "num_attention_heads")


def _of_final(asked: Asked, layers: list[int]) -> Tensor:
    """The maps [T, N] of the model's own logits."""
    recorder, found = Recorder(), no_maps(asked)

    def take(layer: int, call: Call, output: Tensor, tokens: slice) -> Tensor:
        if not asked.decoder.causal and tokens.start == 0:
            return recorder.keep(layer, call, output, tokens)  # other rows of the prompt read the first query's
        count = tokens.stop - tokens.start
        rows = recorder.keep(layer, call, own_rows(call, count), tokens)
        return torch.cat([output[:, : output.shape[1] - count].detach(), rows], dim=1)

    with in_memory(AttentionGradient.name), recording(asked.model, asked.decoder):
        logits = answer_forward(asked, all_layers(asked, f"{AttentionGradient.name}:of=final"), take).run()
        found_gradients = gradients(logits.sum(), recorder.records, asked.decoder)
    for record, gradient in zip(recorder.records, found_gradients, strict=True):
        if record.layer in layers:
            _add(found, record, gradient)
    return found.token_maps


def _add(found: VisualMaps, record: Recorded, gradient: Tensor) -> None:
    """Adds the layer's map; gradient: [1, Q, H, D_v] of the last queries, or of all."""
    behind = gradient.shape[1] - record.tokens.stop
    for tokens, rows in last(record.call, record.tokens):
        of_rows = gradient[0, tokens.start + behind : tokens.stop + behind]
        found.add(tokens, net_gradient(record.call, rows, of_rows))
