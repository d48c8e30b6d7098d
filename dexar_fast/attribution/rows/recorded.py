"""Every layer's attention in a forward over prompt and answer with its graph, and the gradients of its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dexar_fast.attribution.gradients import checked, is_altered
from dexar_fast.errors import ModelError
from dexar_fast.model.attention import Call
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.lending.frozen import frozen
from dexar_fast.model.wanted import check_wanted


@dataclass(frozen=True)
class Recorded:
    """The attention of one layer in one forward."""

    layer: int
    call: Call  # without its graph
    output: Tensor  # [1, Q, H, D_v] or its last rows, in the graph
    tokens: slice  # of the answer, those that the last queries predict


class Recorder:
    """Keeps the attention of every layer as it runs."""

    def __init__(self) -> None:
        self.records: list[Recorded] = []

    def keep(self, layer: int, call: Call, output: Tensor, tokens: slice) -> Tensor:
        """Returns the output; where autograd records, it is in the graph even if nothing before it is."""
        if torch.is_grad_enabled():
            output.requires_grad_()
        self.records.append(Recorded(layer, _detached(call), output, tokens))
        return output


def _detached(call: Call) -> Call:
    return replace(call, query=call.query.detach(), key=call.key.detach(), value=call.value.detach())


@contextmanager
def recording(model: nn.Module, decoder: Decoder) -> Iterator[None]:
    """Inside the block autograd records activations and leaves out the weights; see `gradients.checked`."""
    with torch.enable_grad(), frozen(model), checked(decoder.layers):
        yield


def gradients(total: Tensor, records: Sequence[Recorded], decoder: Decoder) -> list[Tensor]:
    """d total / d output of each record, shaped as it; the graph is kept.

    0 where the total does not depend on it: an earlier forward's last layer, or what a user's hook has replaced.

    Raises:
        ModelError: no path leads from the total to a layer that ran in the same forward as the last of the records.
    """
    outputs = [record.output for record in records]
    if not total.requires_grad or not all(output.requires_grad for output in outputs):
        raise ModelError("a decoder layer runs under torch.no_grad() or inference_mode(): no gradient leads through it")
    check_wanted()
    found = torch.autograd.grad(total, outputs, retain_graph=True, allow_unused=True)
    for record, gradient in zip(records, found, strict=True):
        if gradient is None and record.tokens == records[-1].tokens:
            _check_altered(decoder.layers[record.layer :])
    return [torch.zeros_like(x) if gradient is None else gradient for x, gradient in zip(outputs, found, strict=True)]


def _check_altered(layers: list[nn.Module]) -> None:
    """Raises ModelError unless the user's code may cut the gradient in one of the layers, all to the last."""
    if not any(map(is_altered, layers)):
        raise ModelError(
            f"no gradient leads from the answer back to the attention of {type(layers[0]).__name__}: it cannot be "
            "explained by the gradient of the answer"
        )
