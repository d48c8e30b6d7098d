"""An answer's logits with their graph back to the visual embeddings, and the gradients of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from dexar_fast.attribution.gradients import checked, leads_back
from dexar_fast.errors import ModelError
from dexar_fast.methods.base import WHOLE_ANSWER, Asked, Maps
from dexar_fast.methods.gradient.entry import Change, Entry
from dexar_fast.model.lending.frozen import frozen
from dexar_fast.model.memory import fitting
from dexar_fast.model.teacher_forcing import head_inputs
from dexar_fast.model.wanted import check_wanted

Rules = Callable[[], AbstractContextManager[object]]
"""Inside its block torch computes what it computes, with other gradients."""


@dataclass(frozen=True)
class Recorded:
    """One forward with its graph.

    Attributes:
        leaves: the visual embeddings, [N, ...] each. logits: [T], the model's own of the answer's tokens.
    """

    leaves: Sequence[Tensor]
    logits: Tensor

    def gradients(self) -> Iterator[list[Tensor]]:
        """Of each token's logit at each leaf, shaped as the leaves."""
        yield from map(self.gradient, self.logits)

    def gradient(self, value: Tensor) -> list[Tensor]:
        """Of a number made of the logits."""
        check_wanted()
        return list(torch.autograd.grad(value, self.leaves, retain_graph=True))


def recorded(asked: Asked, change: Change, rules: Rules = nullcontext) -> Recorded:
    """A forward of prompt and answer, the visual embeddings changed.

    Raises:
        ModelError: the visual tokens do not enter the decoder among the prompt's, or the graph is cut on the way.
        OutOfMemoryError: the graph of all layers does not fit.
    """
    entry, targets, decoder = Entry(asked, change), asked.targets, asked.decoder
    with (
        fitting("the graph of prompt and answer through all layers"),
        torch.enable_grad(),
        frozen(asked.model),
        entry.hooked(),
        checked(decoder.layers),
        rules(),
    ):
        normed = head_inputs(asked.model, asked.inputs, targets[:-1], decoder, asked.visual)
        logits = decoder.lens.difference(normed[:, -len(targets) :], targets, asked.against)
    if not entry.leaves or not all(leads_back(logits, leaf) for leaf in entry.leaves):
        raise ModelError(
            "no gradient leads from the answer back to the visual embeddings: it cannot be explained by it"
        )
    return Recorded(entry.leaves, logits)


def unchanged(number: int, values: Tensor) -> Tensor:
    """The model's own embeddings."""
    return values.clone()


def maps_of(asked: Asked, token_maps: Sequence[Tensor], notes: Sequence[str], **diagnostics: object) -> Maps:
    """The result of a map [N] for each token, whose sum is the sequence's map."""
    found = torch.stack(list(token_maps)).cpu()
    return Maps(found, found.sum(0), asked.grids, notes=[*notes, WHOLE_ANSWER], diagnostics=diagnostics)
