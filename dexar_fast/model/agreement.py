"""Whether a model computes under our attention, into our cache, what it computes under its own.

Some families build their mask only for certain names of the attention, or keep more than keys in their cache. Under
another name, or with another cache, they raise no error and compute something else. So the last logits of a prompt are
compared: of the first prompt, and of each that runs in a new way or is much longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dexar_fast.errors import ModelError
from dexar_fast.model.attention import Kind
from dexar_fast.model.cache import goes_back, to_forward, whole_cache
from dexar_fast.model.lending.session import Loan
from dexar_fast.model.logits import last_logits
from dexar_fast.model.memory import fitting

LONGER = 2  # a prompt more than this many times the longest compared may reach a window or an index budget
SAME = "sdpa"  # the implementation that ours calls: over the families of tests/support/zoo.py not a bit differs
# In roundings of the model's dtype, relative to the largest logit. Other implementations sum in another order. Eager
# attention, over the same families with 3 layers and weights that amplify it, differs by up to 23 in float32 and 12 in
# half precision, and by 4e-7 in float64, where its softmax is in float32.
ROUNDINGS, ROUNDINGS_OF_OTHERS = 4, 16
FLOOR, FLOOR_OF_OTHERS = 1e-5, 1e-4
WRONG = "Its maps would be wrong: it is not supported"


_known: WeakKeyDictionary[nn.Module, Agreement] = WeakKeyDictionary()


def agreement_of(model: nn.Module) -> Agreement:
    """The model's Agreement, shared by all that explain it. Call it with the model on loan."""
    return _known.setdefault(model, Agreement())


class Agreement:
    """The ways in which one model was seen to run, and which of them were compared."""

    def __init__(self) -> None:
        self.met: set[Kind] = set()  # ways in which the model has called our attention
        self._compared: set[tuple[str, Kind]] = set()
        self._longest = 0  # tokens of a prompt
        self.goes_on: dict[bool, bool] = {}  # behind a state of its cache: several tokens, or one alone; once tried

    def check(self, model: Any, inputs: Mapping[str, Any], loan: Loan, logits: Tensor | None = None) -> None:
        """Compares the model with itself on a prompt, if it is much longer than those before or ran in a new way.

        Args:
            inputs: the whole prompt, batch 1.
            loan: of the model.
            logits: [V] of its last token under our attention, if they are known.
        Raises:
            ModelError: they differ by more than rounding.
        """
        self.once(inputs["input_ids"].shape[1], loan, partial(compare, model, inputs, loan, logits))

    def once(self, length: int, loan: Loan, comparison: Callable[[], None]) -> None:
        """Calls the comparison for a prompt that is much longer than those before, or ran in a new way."""
        met = {(loan.attention, kind) for kind in self.met}
        if length <= LONGER * self._longest and met <= self._compared:
            return
        comparison()
        self._compared |= met
        self._longest = max(self._longest, length)


@torch.no_grad()
def compare(model: Any, inputs: Mapping[str, Any], loan: Loan, logits: Tensor | None) -> None:
    """Raises ModelError if the last logits of a prompt differ under the model's own attention and cache."""
    with fitting("running the prompt under the model's own attention"):
        ours = _under_ours(model, inputs) if logits is None else logits
        with loan.own_attention():
            own = _last_logits(model, inputs, use_cache=True)
    difference = relative_difference(ours, own)
    if difference > bound(loan.attention, model.dtype):
        raise ModelError(
            f"{type(model).__name__} computes something else under dexar_fast's attention than under its own "
            f"({loan.attention!r}): the last logits of the prompt differ by {difference:.2g} of the largest. {WRONG}"
        )


def _under_ours(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    if not goes_back(model.config):
        return _last_logits(model, inputs, use_cache=False)
    return _last_logits(model, inputs, use_cache=True, **to_forward(model, whole_cache(model.config)))


def _last_logits(model: Any, inputs: Mapping[str, Any], **cache: Any) -> Tensor:
    return model(**inputs, **cache, **last_logits(model)).logits[0, -1]


def relative_difference(ours: Tensor, own: Tensor) -> float:
    """The largest difference of two rows of logits [V] over the largest; ids that the model rules out are left out.

    So are NaN and infinity of its own, and 0 is returned if nothing is left: the pass itself names the layer that they
    come from. NaN of ours alone differs by infinity.
    """
    if (ours.isnan() & own.isfinite()).any():
        return math.inf
    lowest = torch.finfo(own.dtype).min
    used = own.isfinite() & (own > lowest) & (ours > lowest)
    ours, own = ours[used].double(), own[used].double()
    largest = own.abs().max() if len(own) else 0
    return float((ours - own).abs().max() / largest) if largest > 0 else 0.0


def bound(attention: str, dtype: torch.dtype) -> float:
    """The largest relative difference that counts as rounding."""
    eps = torch.finfo(dtype).eps
    return max(FLOOR, ROUNDINGS * eps) if attention == SAME else max(FLOOR_OF_OTHERS, ROUNDINGS_OF_OTHERS * eps)
