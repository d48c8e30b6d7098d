"""AttnLRP: relevance of the visual embeddings, layer by layer back from a token's logit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.autograd.function import BackwardCFunction

from dexar_fast.attribution.gradients import nodes
from dexar_fast.errors import InputError, ModelError
from dexar_fast.methods import knobs
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.gradient.forward import Recorded, recorded, unchanged
from dexar_fast.methods.gradient.plain import product
from dexar_fast.methods.gradient.rules import OWN, AttnLrpRules

_NOTES = (
    "Map value of a patch, in logits: its relevance for the model's logit of the token, handed back layer by layer by "
    "the rules of AttnLRP, 0 where negative.",
    "Map of the whole answer: the same for the sum of the tokens' logits, not the sum of their maps.",
    "Relevance is shared out by rules, not measured: text, biases and the softmax of attention take shares of the "
    "logit, too, and hiding the patch may change the logit by another amount.",
)


@dataclass(frozen=True)
class AttnLrp:
    """map[t, j] = relu( sum_d R_t[j, d] ), R_t the relevance of the embedding of visual token j (arXiv 2402.05602).

    R_t = x * d o[v_t] / d x with the gradients of `rules.AttnLrpRules`; it equals what lxt 2.1 ("efficient") computes.
    Experts count with the routing weights that they had. One forward serves all tokens; each has a backward of its
    own, and the whole answer one more where not every token has. Refused where a layer calls what no rule is defined
    for: gated delta rules, state spaces, clamps. `diagnostics["relevance"]` has the sum over the visual tokens for each
    chosen token, negative parts among it.

    Attributes:
        tokens: which tokens get a map of their own (negative from the end); None is all; the others' is 0.
        weights: of the T tokens in the whole answer's map; None is 1 each.
    Raises:
        InputError: tokens or weights that are no numbers.
    """

    name: ClassVar[str] = "attn-lrp"
    contrasts: ClassVar[bool] = True
    tokens: Sequence[int] | None = None
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None:
            object.__setattr__(self, "tokens", tuple(knobs.indices("tokens", self.tokens)))
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(knobs.reals("weights", self.weights)))

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N], at least 0.

        Raises:
            InputError: a token beyond the answer, or weights of another number. Else as `forward.recorded`; ModelError
            where no rule is defined.
        """
        count = len(asked.targets)
        chosen, weights = knobs.tokens_of(self.tokens, count), self._weights(count)
        found = recorded(asked, unchanged, AttnLrpRules)
        _check(found)
        every = chosen == [*range(count)]
        shares = {t: product(found.leaves, found.gradient(found.logits[t])) for t in chosen}
        if every:
            whole = torch.stack([weight * shares[t] for t, weight in enumerate(weights)]).sum(0)
        else:
            total = (found.logits * found.logits.new_tensor(weights)).sum()
            whole = product(found.leaves, found.gradient(total))
        maps = torch.zeros(count, len(whole), dtype=whole.dtype)
        for t, share in shares.items():
            maps[t] = share.relu().cpu()
        said = {"relevance": [float(share.sum()) for share in shares.values()], "tokens": chosen}
        return Maps(maps, whole.relu().cpu(), asked.grids, notes=_NOTES, diagnostics=said)

    def _weights(self, count: int) -> Sequence[float]:
        if self.weights is None:
            return [1.0] * count
        if len(self.weights) != count:
            raise InputError(f"weights must be one for each of the {count} tokens, not {len(self.weights)}")
        return self.weights


def _check(found: Recorded) -> None:
    """Raises ModelError if code with a backward of its own lies on the way, which no rule has seen."""
    for node in nodes(found.logits):
        if isinstance(node, BackwardCFunction) and not isinstance(node, OWN):
            name = type(node).__name__.removesuffix("Backward")
            raise ModelError(f"AttnLRP has no rule for {name}, which has a backward of its own")
