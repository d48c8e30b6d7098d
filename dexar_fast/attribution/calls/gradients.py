"""u of a call's queries: by the formula of the layer's tail, or by autograd through the graph that it recorded."""

from __future__ import annotations

import torch
from torch import Tensor

from dexar_fast.attribution.gradients import check_gradient, go_on_recording, gradient, own_gradients, reach_others
from dexar_fast.attribution.tails.block import check_norms_twice
from dexar_fast.attribution.tails.trust import Tails
from dexar_fast.model.decoder import Decoder


class CallGradients:
    """The VJPs of one pass.

    Args:
        norm_twice: whether the last layer's output is normed twice, as by the authors' code.
    """

    def __init__(self, decoder: Decoder, tails: Tails, norm_twice: bool) -> None:
        self._decoder = decoder
        self._tails = tails
        self._norm_twice = norm_twice

    def u(
        self,
        index: int,
        hidden: Tensor,
        leaf: Tensor,
        targets: Tensor,
        states: Tensor | None = None,
        keep: bool = False,
    ) -> Tensor:
        """u = d o[v_t] / d (attention output at p_t) of every query at once: [B, C, H, D].

        Args:
            index: of the call. hidden: the layer's output. leaf: [B, C, H, D] the attention's. targets: [B, C].
            states: [B, C, n, d] of earlier layers, where the lens reads such.
            keep: whether another call of the layer is still to be differentiated.
        """
        norm_twice = self._norm_twice and index == len(self._decoder.layers) - 1
        if self._tails.trusts(index):
            return self._tails.vjp(index, hidden, leaf, targets, norm_twice)
        u = self._recorded(index, hidden, leaf, targets, norm_twice, states, keep)
        if hidden.ndim > 3:  # no tail is known for streams
            return u
        return self._tails.judged(index, hidden, leaf, targets, norm_twice, u)

    def _recorded(
        self,
        index: int,
        hidden: Tensor,
        leaf: Tensor,
        targets: Tensor,
        norm_twice: bool,
        states: Tensor | None,
        keep: bool,
    ) -> Tensor:
        """The same by autograd, through the graph that the layer recorded."""
        layer, lens = self._decoder.layers[index], self._decoder.lens
        go_on_recording(hidden, layer)
        normed = lens.norm(lens.last(hidden, targets.shape[1]), states)
        if norm_twice:
            check_norms_twice(layer, hidden, normed, states)
            normed = lens.norm(normed)
        normed = normed.flatten(0, 1)[None]
        logits = lens.logits(normed, targets.flatten())
        check_gradient(lens.head, (normed,), {}, logits)
        u = own_gradients(logits, leaf) if self._mixes(index, logits, leaf) else gradient(logits, leaf, layer, keep)
        torch.set_grad_enabled(False)
        return u

    def _mixes(self, index: int, logits: Tensor, leaf: Tensor) -> bool:
        """Whether queries reach each other behind a layer's attention, as through a convolution; found on first use."""
        decoder, queries = self._decoder, len(logits)
        if not self._tails.knows(index) and queries > decoder.apart.get(index, 1) and index not in decoder.mixing:
            decoder.apart[index] = queries
            if reach_others(logits, leaf):
                decoder.mixing.add(index)
        return index in decoder.mixing
