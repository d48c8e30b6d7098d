"""AttnLRP: relevance of the visual embeddings, layer by layer back from a token's logit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.autograd.function import BackwardCFunction

from dexar_fast.attribution.gradients import nodes
from dexar_fast.errors import ModelError
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.gradient.forward import Recorded, maps_of, recorded, unchanged
from dexar_fast.methods.gradient.plain import product
from dexar_fast.methods.gradient.rules import OWN, AttnLrpRules

_NOTES = (
    "Map value of a patch, in logits: its relevance for the model's logit of the token, handed back layer by layer by "
    "the rules of AttnLRP, 0 where negative.",
    "Relevance is shared out by rules, not measured: text, biases and the softmax of attention take shares of the "
    "logit, too, and hiding the patch may change the logit by another amount.",
)


@dataclass(frozen=True)
class AttnLrp:
    """map[t, j] = relu( sum_d R_t[j, d] ), R_t the relevance of the embedding of visual token j (arXiv 2402.05602).

    R_t = x * d o[v_t] / d x with the gradients of `rules.AttnLrpRules`; it equals what lxt 2.1 ("efficient") computes.
    Experts count with the routing weights that they had. One forward serves all tokens; each has a backward of its
    own. Refused where a layer calls what no rule is defined for: gated delta rules, state spaces, clamps.
    `diagnostics["relevance"]` has each token's sum over the visual tokens, negative parts among it.
    """

    name: ClassVar[str] = "attn-lrp"
    contrasts: ClassVar[bool] = True

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N], at least 0. Raises as `forward.recorded`; ModelError where no rule is defined."""
        found = recorded(asked, unchanged, AttnLrpRules)
        _check(found)
        shares = [product(found.leaves, gradients) for gradients in found.gradients()]
        return maps_of(
            asked, [share.relu() for share in shares], _NOTES, relevance=[float(each.sum()) for each in shares]
        )


def _check(found: Recorded) -> None:
    """Raises ModelError if code with a backward of its own lies on the way, which no rule has seen."""
    for node in nodes(found.logits):
        if isinstance(node, BackwardCFunction) and not isinstance(node, OWN):
            name = type(node).__name__.removesuffix("Backward")
            raise ModelError(f"AttnLRP has no rule for {name}, which has a backward of its own")
