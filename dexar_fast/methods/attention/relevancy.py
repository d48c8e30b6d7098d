"""Relevancy after Chefer et al.: attention times gradient, composed over all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dexar_fast.attribution.rows.carried import Part, carried
from dexar_fast.attribution.rows.matrices import positive_gradient
from dexar_fast.attribution.rows.recorded import Recorded, Recorder, gradients, recording
from dexar_fast.methods.attention.request import all_layers, answer_forward, in_memory, maps_of, no_maps, unit_rows
from dexar_fast.methods.base import Asked, Maps

_NOTES = (
    "Map value of a patch: its relevancy, attention \N{MULTIPLICATION SIGN} gradient of the model's logit of the "
    "token, 0 where negative, averaged over heads and composed over all layers. It has no unit: compare it in a page.",
    "Evidence against a token does not show. In the sum, tokens of larger gradients count more.",
)


@dataclass(frozen=True)
class Relevancy:
    """map[t, j] = the row of p_t of (I + E_L) ... (I + E_1), E_l = mean_h relu(A_l dA_l) (arXiv 2103.15679).

    dA_l[h, i, j] is the gradient of the model's own logit of token t, before any processor of generate(), with respect
    to A_l of every query i: one forward and T backwards, whose graph and attention inputs of all layers are kept. The
    row is carried from the top layer down through blocks of rows of each E_l: memory O(block x S) beside these.

    This is the reference repository's rule for self-attention, applied to each token by itself. lvlm-interpret, over a
    KV cache, instead keeps for every row the E of the token that this row predicts (the first, for all of the prompt):
    another quantity from the second token on. It also takes gradients of processed scores, and divides R - I by its row
    sums. Defined for layers of softmax attention.
    """

    name: ClassVar[str] = "relevancy"
    contrasts: ClassVar[bool] = True

    def maps(self, asked: Asked) -> Maps:
        layers, recorder, found = all_layers(asked, self.name), Recorder(), no_maps(asked)
        with in_memory(self.name), recording(asked.model, asked.decoder):
            logits = answer_forward(asked, layers, recorder.keep).run()
            for t, row in enumerate(unit_rows(asked)):
                records = [each for each in recorder.records if each.tokens.start <= t]
                found.add(slice(t, t + 1), _carried(row[None], records, gradients(logits[t], records, asked.decoder)))
        return maps_of(asked, found.token_maps, layers, _NOTES)


@torch.no_grad()
def _carried(row: Tensor, records: Sequence[Recorded], gradient: Sequence[Tensor]) -> Tensor:
    """A row [1, S] through all layers, the last one first."""
    pairs = list(zip(records, gradient, strict=True))
    for layer in sorted({each.layer for each in records}, reverse=True):
        row = row + carried(row, [_part(*pair) for pair in pairs if pair[0].layer == layer])
    return row


def _part(record: Recorded, gradient: Tensor) -> Part:
    return record.call, lambda block: positive_gradient(record.call, block, gradient[0, block])
