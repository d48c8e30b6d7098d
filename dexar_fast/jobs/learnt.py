"""Results that do not depend on what a process has explained before.

The first explanations of a process find out how the model is best run, and so run otherwise than later ones: the same
up to rounding. Who wants the same bits after a kill explains once more what taught the process something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from dexar_fast.generation.batch import alike
from dexar_fast.model.agreement import agreement_of

if TYPE_CHECKING:
    from dexar_fast.explainer import Explainer

MOST = 3  # times that something new may be learnt: the decoder, its tails, its batches
Found = TypeVar("Found")


def as_if_known(explainer: Explainer, explain: Callable[[], Found]) -> Found:
    """What `explain` returns once it teaches nothing new of the model."""
    for _ in range(MOST):
        before = _known(explainer)
        found = explain()
        if _known(explainer) == before:
            break
    return found


def _known(explainer: Explainer) -> Any:
    decoder, model = explainer.decoder, explainer.model
    agreement = agreement_of(model)
    tails = None if decoder is None else len(decoder.trusted_tails)
    return tails, alike.count(model), len(agreement.met), dict(agreement.goes_on)
